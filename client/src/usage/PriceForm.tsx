import { Autocomplete, Button, Group, TextInput } from '@mantine/core'
import { type SubmitEvent, useEffect, useRef, useState } from 'react'
import { asProblem, type Problem } from '../api/errors'
import { useModels } from '../chat/ModelProvider'
import { ProblemNote } from '../ui/ProblemNote'
import { setPrice } from './calls'
import { AMOUNTS, type Draft, definitionOf, EVERY_OTHER, isField, mistakesOf } from './prices'
import classes from './usage.module.css'

interface Props {
  initial: Draft
  onSaved: () => void
  onCancel: () => void
}

/** Sets what a model costs from now on, or from an earlier time. */
export function PriceForm({ initial, onSaved, onCancel }: Props) {
  const [draft, setDraft] = useState(initial)
  const [mistakes, setMistakes] = useState<ReturnType<typeof mistakesOf>>({})
  const [problem, setProblem] = useState<Problem | null>(null)
  const [pending, setPending] = useState(false)
  const form = useRef<HTMLFormElement>(null)
  useEffect(() => {
    const wrong = form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')
    if (Object.keys(mistakes).length > 0) wrong?.focus()
  }, [mistakes])

  const change = (name: keyof Draft, text: string) => {
    setDraft({ ...draft, [name]: text })
    setMistakes({})
  }
  const save = async () => {
    const found = mistakesOf(draft)
    setMistakes(found)
    setProblem(null)
    if (Object.keys(found).length > 0) return
    setPending(true)
    try {
      await setPrice(draft.model.trim(), definitionOf(draft))
      onSaved()
    } catch (reason) {
      const refused = asProblem(reason)
      if (isField(refused.param)) setMistakes({ [refused.param]: refused.message })
      else setProblem(refused)
      setPending(false)
    }
  }
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (!pending) void save()
  }
  const fieldOf = (name: keyof Draft) => ({
    value: draft[name],
    error: mistakes[name],
    autoComplete: 'off',
  })
  return (
    <form
      ref={form}
      className={classes.priceForm}
      onSubmit={submit}
      aria-label="Set a price"
      noValidate
    >
      <ModelField {...fieldOf('model')} onChange={(model) => change('model', model)} />
      {AMOUNTS.map(({ name, label, needed }) => (
        <TextInput
          key={name}
          {...fieldOf(name)}
          label={needed ? label : `${label} (optional)`}
          inputMode="decimal"
          onChange={(event) => change(name, event.currentTarget.value)}
        />
      ))}
      <TextInput
        {...fieldOf('since')}
        type="datetime-local"
        label="Since (optional)"
        description="Empty: from now on."
        onChange={(event) => change('since', event.currentTarget.value)}
      />
      <div className={classes.wide}>
        <ProblemNote problem={problem} />
      </div>
      <Group gap="xs" className={classes.wide}>
        <Button type="submit" loading={pending}>
          Save
        </Button>
        <Button variant="default" onClick={onCancel}>
          Cancel
        </Button>
      </Group>
    </form>
  )
}

interface ModelFieldProps {
  value: string
  error: string | undefined
  onChange: (model: string) => void
}

function ModelField(props: ModelFieldProps) {
  const { models } = useModels()
  const single = models?.filter(({ council }) => !council).map(({ id }) => id) ?? []
  return (
    <Autocomplete
      {...props}
      className={classes.wide}
      label="Model"
      description={`${EVERY_OTHER} is every model without a price of its own.`}
      data={[EVERY_OTHER, ...single]}
      data-autofocus
    />
  )
}
