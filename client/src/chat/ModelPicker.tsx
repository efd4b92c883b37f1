import { NativeSelect } from '@mantine/core'
import classes from './chat.module.css'
import { useModels } from './ModelProvider'

/** A native select: it is the one that works best on a phone and with a screen reader. */
export function ModelPicker() {
  const { models, chosen, choose } = useModels()
  const none = models === null ? '…' : 'No model'
  return (
    <NativeSelect
      aria-label="Model"
      size="xs"
      className={classes.picker}
      data={models?.length ? models.map(({ id }) => id) : [{ value: '', label: none }]}
      value={chosen?.id ?? ''}
      disabled={chosen === null}
      onChange={(event) => choose(event.currentTarget.value)}
    />
  )
}
