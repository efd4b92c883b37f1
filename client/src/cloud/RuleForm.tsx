import { Button, Group, NativeSelect, Radio, Stack, TextInput } from '@mantine/core'
import { type SubmitEvent, useState } from 'react'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import classes from './cloud.module.css'
import { Exceptions } from './Exceptions'
import { type Draft, draftOf, type Mistakes, mistakesOf, ruleOf, type Scope } from './rule'
import { MODES, type Rule } from './wire'
import { MODE_WORDS, PERSONAL_WORDS } from './words'

interface Props {
  scope: Scope
  rule: Rule
  label: string
  /** Names of local models, for the box. */
  models?: readonly string[]
  onSave: (rule: Rule) => Promise<void>
  onCancel?: () => void
}

export interface PartProps {
  draft: Draft
  mistakes: Mistakes
  onChange: (change: Partial<Draft>) => void
}

/** What a person, an admin about a person, or an admin about everybody says of clouds. */
export function RuleForm({ scope, rule, label, models = [], onSave, onCancel }: Props) {
  const [draft, setDraft] = useState(() => draftOf(rule, scope))
  const [mistakes, setMistakes] = useState<Mistakes>({})
  const [saved, setSaved] = useState(false)
  const [save, { pending, problem }] = useAction(async () => {
    await onSave(ruleOf(draft, scope, rule))
    setSaved(true)
  })
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    const found = mistakesOf(draft)
    setMistakes(found)
    if (Object.keys(found).length === 0) void save()
  }
  const parts: PartProps = {
    draft,
    mistakes,
    onChange: (change) => {
      setDraft({ ...draft, ...change })
      setMistakes({})
      setSaved(false)
    },
  }
  return (
    <form className={classes.form} aria-label={label} onSubmit={submit} noValidate>
      <ModeChoice {...parts} scope={scope} />
      <div className={classes.fields}>
        <PersonalData {...parts} scope={scope} />
        <Code {...parts} scope={scope} />
        {scope !== 'cap' && <Patience {...parts} scope={scope} />}
        {scope === 'box' && <Detection {...parts} models={models} />}
      </div>
      <Exceptions {...parts} />
      <ProblemNote problem={problem} />
      <Group gap="xs">
        <Button type="submit" loading={pending}>
          Save
        </Button>
        {onCancel && (
          <Button variant="default" onClick={onCancel}>
            Cancel
          </Button>
        )}
        <span role="status" className={classes.quiet}>
          {saved && 'Saved. It holds at once.'}
        </span>
      </Group>
    </form>
  )
}

type ScopedProps = PartProps & { scope: Scope }

const TITLES: Record<Scope, string> = {
  own: 'May your questions leave this box when it is full?',
  cap: 'At the most, whatever they choose',
  box: 'At the most, whatever somebody chooses',
}

function ModeChoice({ draft, onChange, scope }: ScopedProps) {
  return (
    <Radio.Group
      label={TITLES[scope]}
      value={draft.mode}
      onChange={(mode) => onChange({ mode: mode as Draft['mode'] })}
    >
      <Stack gap={10} mt={8}>
        {scope !== 'own' && <Radio value="" label="No bound" description="It says nothing." />}
        {MODES.map((mode) => (
          <Radio
            key={mode}
            value={mode}
            label={MODE_WORDS[mode].title}
            description={MODE_WORDS[mode].meaning}
          />
        ))}
      </Stack>
    </Radio.Group>
  )
}

const NOTHING_SAID = { own: 'as what you chose above means it', cap: 'no bound', box: 'no bound' }

function PersonalData({ draft, onChange, scope }: ScopedProps) {
  const choices = Object.entries(PERSONAL_WORDS).map(([value, label]) => ({ value, label }))
  return (
    <NativeSelect
      label="With personal data in it"
      description="Names, addresses, numbers of people, as far as they are found."
      data={[{ value: '', label: NOTHING_SAID[scope] }, ...choices]}
      value={draft.onPersonalData}
      onChange={({ currentTarget: { value } }) =>
        onChange({ onPersonalData: value as Draft['onPersonalData'] })
      }
    />
  )
}

function Code({ draft, onChange, scope }: ScopedProps) {
  const silent = scope === 'own' ? 'it stays here (built in)' : 'no bound'
  return (
    <NativeSelect
      label="With code or files in it"
      description="They cannot be made anonymous."
      data={[
        { value: '', label: silent },
        { value: 'no', label: 'it stays here' },
        { value: 'yes', label: 'it may leave too' },
      ]}
      value={draft.allowsCode}
      onChange={({ currentTarget: { value } }) =>
        onChange({ allowsCode: value as Draft['allowsCode'] })
      }
    />
  )
}

function Patience({ draft, mistakes, onChange, scope }: ScopedProps) {
  return (
    <TextInput
      label="Wait here first, in seconds"
      description={
        scope === 'own'
          ? 'Only who would wait longer is thought of. Empty: as the box says, else 30.'
          : 'For who says nothing about it. Empty: 30.'
      }
      inputMode="decimal"
      autoComplete="off"
      value={draft.patience}
      error={mistakes.patience}
      onChange={({ currentTarget }) => onChange({ patience: currentTarget.value })}
    />
  )
}

function Detection({
  draft,
  mistakes,
  onChange,
  models,
}: PartProps & { models: readonly string[] }) {
  const known = [...new Set([...models, ...(draft.detectionModel ? [draft.detectionModel] : [])])]
  return (
    <>
      <NativeSelect
        label="Detection model"
        description="A model of this box that looks for personal data. Patterns alone miss most of it: without one nothing leaves unasked."
        data={[{ value: '', label: 'none' }, ...known]}
        value={draft.detectionModel}
        onChange={({ currentTarget }) => onChange({ detectionModel: currentTarget.value })}
      />
      <TextInput
        label="Time to look, in seconds"
        description="Who is not sure by then keeps it here. Empty: 2."
        inputMode="decimal"
        autoComplete="off"
        value={draft.detection}
        error={mistakes.detection}
        onChange={({ currentTarget }) => onChange({ detection: currentTarget.value })}
      />
      <NativeSelect
        label="Members of councils"
        description="A council asks several models at once."
        data={[
          { value: 'no', label: 'are asked on this box alone' },
          { value: 'yes', label: 'may be answered by a cloud' },
        ]}
        value={draft.councilMembers ? 'yes' : 'no'}
        onChange={({ currentTarget }) =>
          onChange({ councilMembers: currentTarget.value === 'yes' })
        }
      />
    </>
  )
}
