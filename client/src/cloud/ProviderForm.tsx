import { Button, Group, NativeSelect, Text, TextInput } from '@mantine/core'
import { IconPlus } from '@tabler/icons-react'
import { type SubmitEvent, useEffect, useRef, useState } from 'react'
import { asProblem, type Problem } from '../api/errors'
import { ProblemNote } from '../ui/ProblemNote'
import { SecretInput } from '../ui/SecretInput'
import classes from './cloud.module.css'
import { ModelFields } from './ModelFields'
import { type Draft, KINDS, type Mistakes, mistakesOf, newModel } from './provider'
import type { ProviderKind } from './wire'

interface Props {
  label: string
  action: string
  initial: Draft
  isNew: boolean
  /** Names that the provider listed when it was checked. */
  listed?: readonly string[]
  onSubmit: (draft: Draft) => Promise<void>
  onCancel: () => void
}

export interface PartProps {
  draft: Draft
  mistakes: Mistakes
  onChange: (change: Partial<Draft>) => void
}

export function ProviderForm({ label, action, initial, isNew, listed = [], ...rest }: Props) {
  const { onSubmit, onCancel } = rest
  const [draft, setDraft] = useState(initial)
  const [mistakes, setMistakes] = useState<Mistakes>({})
  const [problem, setProblem] = useState<Problem | null>(null)
  const [pending, setPending] = useState(false)
  const form = useFocusOnMistake(mistakes)
  const send = async () => {
    const found = mistakesOf(draft, isNew)
    setMistakes(found)
    setProblem(null)
    if (Object.keys(found).length > 0) return
    setPending(true)
    try {
      await onSubmit(draft)
    } catch (reason) {
      const refused = asProblem(reason)
      if (refused.param !== null && ['name', 'url', 'api_key'].includes(refused.param)) {
        setMistakes({ [refused.param]: refused.message })
      } else setProblem(refused)
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
  const bare = !isNew || undefined
  return (
    <form
      className={classes.form}
      data-bare={bare}
      aria-label={label}
      onSubmit={submit}
      ref={form}
      noValidate
    >
      <Address {...parts} isNew={isNew} />
      <Models {...parts} listed={listed} />
      <ProblemNote problem={problem} />
      <Group gap="xs">
        <Button type="submit" loading={pending}>
          {action}
        </Button>
        <Button variant="default" disabled={pending} onClick={onCancel}>
          Cancel
        </Button>
      </Group>
    </form>
  )
}

const plain = { autoComplete: 'off', autoCapitalize: 'none', spellCheck: false }

function Address({ draft, mistakes, onChange, isNew }: PartProps & { isNew: boolean }) {
  const kind = KINDS.find(({ value }) => value === draft.kind)
  return (
    <div className={classes.fields}>
      {isNew && (
        <>
          <TextInput
            {...plain}
            label="Name"
            placeholder="acme"
            description="As people see it, and the ledger."
            data-autofocus
            value={draft.name}
            error={mistakes.name}
            onChange={({ currentTarget }) => onChange({ name: currentTarget.value })}
          />
          <NativeSelect
            label="Kind"
            description="Which API it speaks."
            data={KINDS.map(({ value, label }) => ({ value, label }))}
            value={draft.kind}
            onChange={({ currentTarget: { value } }) => onChange({ kind: value as ProviderKind })}
          />
        </>
      )}
      <TextInput
        {...plain}
        className={classes.wide}
        type="url"
        label="URL"
        description="With /v1 at its end."
        placeholder={kind?.url}
        value={draft.url}
        error={mistakes.url}
        onChange={({ currentTarget }) => onChange({ url: currentTarget.value })}
      />
      <SecretInput
        className={classes.wide}
        label={isNew ? 'API key' : 'New API key (optional)'}
        description={
          isNew
            ? 'Kept encrypted, sent to the provider, and shown to nobody.'
            : 'The one that it has stays if this is empty. Another URL needs the key once more.'
        }
        autoComplete="off"
        value={draft.apiKey}
        error={mistakes.api_key}
        onChange={(apiKey) => onChange({ apiKey })}
      />
    </div>
  )
}

function Models({ draft, mistakes, onChange, listed }: PartProps & { listed: readonly string[] }) {
  const { models } = draft
  return (
    <fieldset className={classes.models}>
      <legend>Models</legend>
      {models.length === 0 && (
        <Text size="sm" c="dimmed">
          Without one nothing is sent there.
        </Text>
      )}
      {models.map((model, at) => (
        <ModelFields
          // biome-ignore lint/suspicious/noArrayIndexKey: they have no name of their own yet
          key={at}
          at={at}
          model={model}
          mistakes={mistakes}
          listed={listed}
          onChange={(change) =>
            onChange({
              models: models.map((each, index) => (index === at ? { ...each, ...change } : each)),
            })
          }
          onRemove={() => onChange({ models: models.filter((_, index) => index !== at) })}
        />
      ))}
      <Button
        size="compact-sm"
        variant="default"
        mr="auto"
        leftSection={<IconPlus size={14} />}
        onClick={() => onChange({ models: [...models, newModel()] })}
      >
        Add a model
      </Button>
    </fieldset>
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
