import { MultiSelect, SegmentedControl, TagsInput, Text, TextInput } from '@mantine/core'
import { useModels } from '../chat/ModelProvider'
import type { Choice, Field } from './draft'
import {
  COUNCIL_STEPS,
  LISTS,
  type Limit,
  type LimitName,
  lower,
  ruleWords,
  valueWords,
} from './limits'
import classes from './quotas.module.css'
import type { Resolved } from './scope'

interface Props {
  limit: Limit
  field: Field
  inherited: Resolved
  mistake: string | undefined
  onChange: (field: Field) => void
}

const CHOICES: Record<'number' | 'weight' | 'list', { value: Choice; label: string }[]> = {
  number: [
    { value: 'inherit', label: 'Inherit' },
    { value: 'value', label: 'Limit' },
    { value: 'unlimited', label: 'Unlimited' },
  ],
  // Nobody's share can be without bounds.
  weight: [
    { value: 'inherit', label: 'Inherit' },
    { value: 'value', label: 'Set' },
  ],
  list: [
    { value: 'inherit', label: 'Inherit' },
    { value: 'value', label: 'Only these' },
    { value: 'unlimited', label: 'All' },
  ],
}

const choicesOf = (name: LimitName) =>
  CHOICES[name === 'weight' ? name : LISTS.has(name) ? 'list' : 'number']

export function LimitField({ limit, field, inherited, mistake, onChange }: Props) {
  const { name, label, hint } = limit
  const otherwise = `${valueWords(name, inherited.value)} (${ruleWords(inherited.rule)})`
  return (
    <div className={classes.field} data-testid={`limit-${name}`}>
      <div className={classes.fieldWords}>
        <Text fw={550}>{label}</Text>
        <Text size="sm" c="dimmed">
          {hint}
        </Text>
      </div>
      <div className={classes.fieldControls}>
        <SegmentedControl
          size="xs"
          aria-label={`How ${lower(label)} is decided`}
          data={choicesOf(name)}
          value={field.choice}
          onChange={(choice) => onChange({ ...field, choice: choice as Choice })}
        />
        {field.choice === 'value' && (
          <ValueInput limit={limit} field={field} mistake={mistake} onChange={onChange} />
        )}
        <Text size="xs" c="dimmed">
          {field.choice === 'inherit' ? `Inherits ${otherwise}` : `Otherwise ${otherwise}`}
        </Text>
        {mistake !== undefined && field.choice !== 'value' && (
          <Text size="xs" c="var(--mantine-color-error)" role="alert">
            {mistake}
          </Text>
        )}
      </div>
    </div>
  )
}

type InputProps = Omit<Props, 'inherited'>

function ValueInput({ limit: { name, label }, field, mistake, onChange }: InputProps) {
  const { models } = useModels()
  if (name === 'models') {
    return (
      <TagsInput
        size="sm"
        classNames={{ inputField: classes.nameField }}
        aria-label={label}
        placeholder={field.names.length === 0 ? 'none; type a name and press Enter' : ''}
        data={models?.map(({ id }) => id) ?? []}
        value={field.names}
        onChange={(names) => onChange({ ...field, names })}
        error={mistake}
      />
    )
  }
  if (name === 'council_steps') {
    return (
      <MultiSelect
        size="sm"
        aria-label={label}
        placeholder={field.names.length === 0 ? 'none' : ''}
        data={COUNCIL_STEPS}
        value={field.names}
        onChange={(names) => onChange({ ...field, names })}
        error={mistake}
      />
    )
  }
  return (
    <TextInput
      size="sm"
      className={classes.number}
      aria-label={label}
      inputMode="numeric"
      autoComplete="off"
      value={field.text}
      onChange={(event) => onChange({ ...field, text: event.currentTarget.value })}
      error={mistake}
      {...(name === 'weight' ? { rightSection: '%' } : {})}
    />
  )
}
