import { Button, Checkbox, Group, NativeSelect, Text, TextInput } from '@mantine/core'
import { type SubmitEvent, useEffect, useRef, useState } from 'react'
import type { Engine } from '../api/client'
import { asProblem, type Problem } from '../api/errors'
import { ProblemNote } from '../ui/ProblemNote'
import { SecretInput } from '../ui/SecretInput'
import { addEngine } from './calls'
import { type Draft, EMPTY, FIELDS, type Mistakes, mistakesOf, movesOf, specOf } from './draft'
import classes from './engines.module.css'
import { KINDS } from './words'

interface Props {
  onAdded: (engine: Engine) => void
  onCancel: () => void
}

export function AddEngine({ onAdded, onCancel }: Props) {
  const [draft, setDraft] = useState<Draft>(EMPTY)
  const [mistakes, setMistakes] = useState<Mistakes>({})
  const [problem, setProblem] = useState<Problem | null>(null)
  const [pending, setPending] = useState(false)
  const form = useFocusOnMistake(mistakes)

  const add = async () => {
    const found = mistakesOf(draft)
    setMistakes(found)
    setProblem(null)
    if (Object.keys(found).length > 0) return
    setPending(true)
    try {
      onAdded(await addEngine(specOf(draft)))
    } catch (reason) {
      const refused = asProblem(reason)
      const at = FIELDS.find((name) => name === refused.param)
      if (at === undefined) setProblem(refused)
      else setMistakes({ [at]: refused.message })
      setPending(false)
    }
  }
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (!pending) void add()
  }

  return (
    <form
      className={classes.form}
      aria-label="Add an engine"
      onSubmit={submit}
      ref={form}
      noValidate
    >
      <Fields
        draft={draft}
        mistakes={mistakes}
        onChange={(change) => {
          setDraft({ ...draft, ...change })
          setMistakes({})
        }}
      />
      <ProblemNote problem={problem} />
      <Group gap="xs">
        <Button type="submit" loading={pending}>
          Add
        </Button>
        <Button variant="default" onClick={onCancel} disabled={pending}>
          Cancel
        </Button>
        <Text size="sm" c="dimmed" role="status">
          {pending && 'It is tested with a few requests. That can take a minute.'}
        </Text>
      </Group>
    </form>
  )
}

interface FieldsProps {
  draft: Draft
  mistakes: Mistakes
  onChange: (change: Partial<Draft>) => void
}

const plain = { autoComplete: 'off', autoCapitalize: 'none', spellCheck: false }

function Fields({ draft, mistakes, onChange }: FieldsProps) {
  const kind = KINDS.find(({ value }) => value === draft.kind) ?? KINDS[0]
  const moves = movesOf(draft.kind)
  return (
    <div className={classes.fields}>
      <TextInput
        {...plain}
        label="Name"
        placeholder="gpu-box"
        data-autofocus
        value={draft.name}
        error={mistakes.name}
        onChange={({ currentTarget }) => onChange({ name: currentTarget.value })}
      />
      <NativeSelect
        label="Kind"
        data={KINDS.map(({ value, label }) => ({ value, label }))}
        value={draft.kind}
        error={mistakes.kind}
        onChange={({ currentTarget }) => onChange({ kind: currentTarget.value })}
      />
      <TextInput
        {...plain}
        label="URL"
        type="url"
        className={classes.wide}
        placeholder={kind.url}
        description={kind.url.endsWith('/v1') ? 'With /v1 at its end.' : 'Without /v1.'}
        value={draft.url}
        error={mistakes.url}
        onChange={({ currentTarget }) => onChange({ url: currentTarget.value })}
      />
      <SecretInput
        label="API key (optional)"
        description="Sent to the engine, shown to nobody."
        autoComplete="off"
        value={draft.apiKey}
        error={mistakes.api_key}
        onChange={(apiKey) => onChange({ apiKey })}
      />
      <TextInput
        label="Slots (optional)"
        description="Requests at a time; else what the engine says."
        inputMode="numeric"
        autoComplete="off"
        value={draft.slots}
        error={mistakes.slots}
        onChange={({ currentTarget }) => onChange({ slots: currentTarget.value })}
      />
      {moves !== undefined && (
        <Checkbox
          className={classes.wide}
          label="The server may load and unload its models"
          description={moves}
          checked={draft.movesModels}
          error={mistakes.moves_models}
          onChange={({ currentTarget }) => onChange({ movesModels: currentTarget.checked })}
        />
      )}
    </div>
  )
}

/** The name has the focus first, then whatever is wrong. */
function useFocusOnMistake(mistakes: Mistakes) {
  const form = useRef<HTMLFormElement>(null)
  useEffect(() => form.current?.querySelector<HTMLElement>('[data-autofocus]')?.focus(), [])
  useEffect(() => {
    if (Object.keys(mistakes).length > 0) {
      form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
    }
  }, [mistakes])
  return form
}
