import { Autocomplete, Button, TagsInput, TextInput } from '@mantine/core'
import { useModels } from '../chat/ModelProvider'
import classes from './cloud.module.css'
import type { Mistakes, ModelDraft } from './provider'

interface Props {
  at: number
  model: ModelDraft
  mistakes: Mistakes
  listed: readonly string[]
  onChange: (change: Partial<ModelDraft>) => void
  onRemove: () => void
}

const NUMBERS = [
  { field: 'input', label: 'A million tokens read costs', mode: 'decimal' },
  { field: 'output', label: 'A million tokens written costs', mode: 'decimal' },
  { field: 'outputMax', label: 'Tokens of an answer at most', mode: 'numeric' },
  { field: 'context', label: 'Tokens of context (optional)', mode: 'numeric' },
] as const

/** One model of a provider: what it costs, and for which models of the box it stands in. */
export function ModelFields({ at, model, mistakes, listed, onChange, onRemove }: Props) {
  const { models } = useModels()
  const local = models?.filter(({ council }) => !council).map(({ id }) => id) ?? []
  const wrong = (field: keyof ModelDraft) => mistakes[`models.${at}.${field}`]
  return (
    <fieldset className={classes.model} aria-label={model.name || `Model ${at + 1}`}>
      <Autocomplete
        className={classes.wide}
        label="Model"
        autoComplete="off"
        data={[...listed]}
        value={model.name}
        error={wrong('name')}
        onChange={(name) => onChange({ name })}
      />
      <TagsInput
        className={classes.wide}
        label="Stands in for"
        description="Models of this box; * is any. With none it is never chosen."
        placeholder={model.standsInFor.length === 0 ? 'a name, then Enter' : ''}
        data={['*', ...local]}
        value={model.standsInFor}
        onChange={(standsInFor) => onChange({ standsInFor })}
      />
      {NUMBERS.map(({ field, label, mode }) => (
        <TextInput
          key={field}
          label={label}
          inputMode={mode}
          autoComplete="off"
          value={model[field]}
          error={wrong(field)}
          onChange={({ currentTarget }) => onChange({ [field]: currentTarget.value })}
        />
      ))}
      <TagsInput
        className={classes.wide}
        label="Fields that it refuses (optional)"
        description="Of the request, such as temperature; they are not sent."
        value={model.leavesOut}
        onChange={(leavesOut) => onChange({ leavesOut })}
      />
      <Button size="compact-sm" variant="default" mr="auto" onClick={onRemove}>
        Remove {model.name === '' ? 'this model' : model.name}
      </Button>
    </fieldset>
  )
}
