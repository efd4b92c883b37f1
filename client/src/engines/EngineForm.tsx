import { Button, Checkbox, Group, NativeSelect, Text, TextInput } from '@mantine/core'
import { type SubmitEvent, useEffect, useRef, useState } from 'react'
import type { Device, Engine, EngineKind } from '../api/client'
import { asProblem, type Problem } from '../api/errors'
import { ProblemNote } from '../ui/ProblemNote'
import { SecretInput } from '../ui/SecretInput'
import { type Draft, fieldOf, type Mistakes, mistakesOf, NUMBERS } from './draft'
import classes from './engines.module.css'
import { KIND_WORDS } from './machine'
import { NUMBER_WORDS, placeholderOf } from './numbers'
import { KINDS, kindLabel, movesOf } from './words'

interface Props {
  label: string
  action: string
  /** What is said while the server is at it. */
  waiting: string
  initial: Draft
  /** The engine that is changed; none where one is added. */
  engine?: Engine
  kinds: EngineKind[]
  devices: Device[]
  onSubmit: (draft: Draft) => Promise<void>
  onCancel: () => void
}

export function EngineForm({ label, action, waiting, initial, onSubmit, ...rest }: Props) {
  const { engine, kinds, devices, onCancel } = rest
  const [draft, setDraft] = useState(initial)
  const [mistakes, setMistakes] = useState<Mistakes>({})
  const [problem, setProblem] = useState<Problem | null>(null)
  const [pending, setPending] = useState(false)
  const form = useFocusOnMistake(mistakes)

  const send = async () => {
    const found = mistakesOf(draft)
    setMistakes(found)
    setProblem(null)
    if (Object.keys(found).length > 0) return
    setPending(true)
    try {
      await onSubmit(draft)
    } catch (reason) {
      const refused = asProblem(reason)
      const at = fieldOf(refused.param)
      if (at === undefined) setProblem(refused)
      else setMistakes({ [at]: refused.message })
      setPending(false)
    }
  }
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (!pending) void send()
  }
  const parts: PartProps = {
    draft,
    mistakes,
    onChange: (change) => {
      setDraft({ ...draft, ...change })
      setMistakes({})
    },
  }

  return (
    <form
      className={classes.form}
      data-bare={engine !== undefined || undefined}
      aria-label={label}
      onSubmit={submit}
      ref={form}
      noValidate
    >
      <div className={classes.fields}>
        <Address {...parts} engine={engine} kinds={kinds} />
        <Key {...parts} engine={engine} />
        <Moves {...parts} />
        <Devices {...parts} devices={devices} />
      </div>
      <Numbers {...parts} engine={engine} />
      <ProblemNote problem={problem} />
      <Group gap="xs">
        <Button type="submit" loading={pending}>
          {action}
        </Button>
        <Button variant="default" onClick={onCancel} disabled={pending}>
          Cancel
        </Button>
        <Text size="sm" c="dimmed" role="status">
          {pending && waiting}
        </Text>
      </Group>
    </form>
  )
}

interface PartProps {
  draft: Draft
  mistakes: Mistakes
  onChange: (change: Partial<Draft>) => void
}

const plain = { autoComplete: 'off', autoCapitalize: 'none', spellCheck: false }

interface AddressProps extends PartProps {
  engine: Engine | undefined
  kinds: EngineKind[]
}

function Address({ draft, mistakes, onChange, engine, kinds }: AddressProps) {
  const kind = KINDS.find(({ value }) => value === draft.kind)
  const usable = kinds.filter(({ left_out }) => left_out === null).map(({ name }) => name)
  // The kinds of the server may still be under way, and a plugin may be gone.
  const names = [...new Set([...KINDS.map(({ value }) => value), ...usable, draft.kind])]
  const isNew = engine === undefined
  return (
    <>
      {isNew && (
        <TextInput
          {...plain}
          label="Name"
          placeholder="gpu-box"
          data-autofocus
          value={draft.name}
          error={mistakes.name}
          onChange={({ currentTarget }) => onChange({ name: currentTarget.value })}
        />
      )}
      <NativeSelect
        label="Kind"
        data={names.map((value) => ({ value, label: kindLabel(value) }))}
        value={draft.kind}
        error={mistakes.kind}
        className={isNew ? undefined : classes.wide}
        onChange={({ currentTarget }) => onChange({ kind: currentTarget.value })}
      />
      <TextInput
        {...plain}
        label="URL"
        type="url"
        className={classes.wide}
        data-autofocus={isNew ? undefined : true}
        placeholder={kind?.url}
        description={kind && (kind.url.endsWith('/v1') ? 'With /v1 at its end.' : 'Without /v1.')}
        value={draft.url}
        error={mistakes.url}
        onChange={({ currentTarget }) => onChange({ url: currentTarget.value })}
      />
    </>
  )
}

function Key({ draft, mistakes, onChange, engine }: PartProps & { engine: Engine | undefined }) {
  const has = engine?.has_api_key === true
  const moves = has && engine.url !== draft.url.trim() && draft.apiKey === '' && !draft.forgetsKey
  return (
    <>
      <SecretInput
        className={classes.wide}
        label={has ? 'New API key (optional)' : 'API key (optional)'}
        description={
          has
            ? `It has one, which stays if this is empty${moves ? ', and goes to the new URL' : ''}.`
            : 'Sent to the engine, shown to nobody.'
        }
        autoComplete="off"
        disabled={draft.forgetsKey}
        value={draft.apiKey}
        error={mistakes.api_key}
        onChange={(apiKey) => onChange({ apiKey })}
      />
      {has && (
        <Checkbox
          className={classes.wide}
          label="Forget the key that it has"
          checked={draft.forgetsKey}
          onChange={({ currentTarget: { checked } }) =>
            onChange({ forgetsKey: checked, apiKey: '' })
          }
        />
      )}
    </>
  )
}

function Moves({ draft, mistakes, onChange }: PartProps) {
  const moves = movesOf(draft.kind)
  if (moves === undefined) return null
  return (
    <Checkbox
      className={classes.wide}
      label="The server may load and unload its models"
      description={moves}
      checked={draft.movesModels}
      error={mistakes.moves_models}
      onChange={({ currentTarget }) => onChange({ movesModels: currentTarget.checked })}
    />
  )
}

/** Those of this machine; for an engine elsewhere none is ticked. */
function Devices({ draft, mistakes, onChange, devices }: PartProps & { devices: Device[] }) {
  const usable = devices.filter(({ is_divided }) => !is_divided)
  const known = new Set(usable.map(({ uuid }) => uuid))
  const choices = [
    ...usable.map(({ uuid, name, kind, index }) => ({
      value: uuid,
      label: `${name} (${KIND_WORDS[kind] ?? kind} ${index})`,
    })),
    ...draft.devices
      .filter((uuid) => !known.has(uuid))
      .map((uuid) => ({ value: uuid, label: `${uuid} (not there now)` })),
  ]
  // Without a choice there is nothing to say.
  if (choices.length < 2 && draft.devices.length === 0) return null
  return (
    <Checkbox.Group
      className={classes.wide}
      label="Devices of this machine that it computes on (optional)"
      description="None for an engine on another machine."
      value={draft.devices}
      error={mistakes.devices}
      onChange={(chosen) => onChange({ devices: chosen })}
    >
      <Group gap="md" mt={6}>
        {choices.map((choice) => (
          <Checkbox key={choice.value} {...choice} />
        ))}
      </Group>
    </Checkbox.Group>
  )
}

function Numbers({
  draft,
  mistakes,
  onChange,
  engine,
}: PartProps & { engine: Engine | undefined }) {
  const isSet = NUMBERS.some((name) => draft.numbers[name] !== '')
  const isWrong = NUMBERS.some((name) => mistakes[name] !== undefined)
  const [isOpen, setIsOpen] = useState(isSet)
  return (
    <details
      className={classes.numbers}
      open={isOpen || isWrong}
      onToggle={({ currentTarget }) => setIsOpen(currentTarget.open)}
    >
      <summary>How much it is given at a time</summary>
      <p>Leave a field empty for what stands in it, which the engine or the settings say.</p>
      <div className={classes.fields}>
        {NUMBERS.map((name) => (
          <TextInput
            key={name}
            label={NUMBER_WORDS[name].label}
            description={NUMBER_WORDS[name].meaning}
            placeholder={placeholderOf(name, engine)}
            inputMode="numeric"
            autoComplete="off"
            value={draft.numbers[name]}
            error={mistakes[name]}
            onChange={({ currentTarget: { value } }) =>
              onChange({ numbers: { ...draft.numbers, [name]: value } })
            }
          />
        ))}
      </div>
    </details>
  )
}

/** The first field has the focus at the beginning, then whatever is wrong. */
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
