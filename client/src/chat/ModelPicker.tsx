import { NativeSelect } from '@mantine/core'
import type { Model } from '../api/models'
import { titleOf } from '../council/names'
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
      data={models?.length ? choicesOf(models) : [{ value: '', label: none }]}
      value={chosen?.id ?? ''}
      disabled={chosen === null}
      onChange={(event) => choose(event.currentTarget.value)}
    />
  )
}

/** Councils stand in a group of their own. */
function choicesOf(models: readonly Model[]) {
  const single = models.filter(({ council }) => !council).map(({ id }) => id)
  const councils = models.filter(({ council }) => council)
  if (councils.length === 0) return single
  const items = councils.map(({ id }) => ({ value: id, label: titleOf(id) }))
  const groups = [{ group: 'Councils: several answers become one', items }]
  return single.length === 0 ? groups : [{ group: 'Models', items: single }, ...groups]
}
