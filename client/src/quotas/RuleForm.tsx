import { Button, Group } from '@mantine/core'
import { type SubmitEvent, useEffect, useRef, useState } from 'react'
import { asProblem, type Problem } from '../api/errors'
import { ProblemNote } from '../ui/ProblemNote'
import { type Draft, draftOf, type Field, mistakesOf, ruleOf } from './draft'
import { LimitField } from './LimitField'
import { LIMITS, type LimitName } from './limits'
import classes from './quotas.module.css'
import { type Standing, saveRule } from './scope'

interface Props {
  standing: Standing
  /** Gets the server's warnings. */
  onSaved: (warnings: string[]) => void
  onCancel: () => void
}

type Mistakes = Partial<Record<LimitName, string>>

/** Each limit of a rule: inherited, a value, or none at all. */
export function RuleForm({ standing, onSaved, onCancel }: Props) {
  const [draft, setDraft] = useState<Draft>(() => draftOf(standing.rule))
  const [mistakes, setMistakes] = useState<Mistakes>({})
  const [problem, setProblem] = useState<Problem | null>(null)
  const [pending, setPending] = useState(false)
  const form = useFocusOnMistake(mistakes)

  const change = (name: LimitName, field: Field) => {
    setDraft({ ...draft, [name]: field })
    setMistakes({ ...mistakes, [name]: undefined })
  }
  const save = async () => {
    const found = mistakesOf(draft)
    setMistakes(found)
    setProblem(null)
    if (Object.keys(found).length > 0) return
    setPending(true)
    try {
      onSaved(await saveRule(standing.scope, ruleOf(draft)))
    } catch (reason) {
      const refused = asProblem(reason)
      const at = LIMITS.find(({ name }) => name === refused.param)
      if (at === undefined) setProblem(refused)
      else setMistakes({ [at.name]: refused.message })
      setPending(false)
    }
  }
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (!pending) void save()
  }

  return (
    <form onSubmit={submit} ref={form} noValidate>
      <div className={classes.fields}>
        {LIMITS.map((limit) => (
          <LimitField
            key={limit.name}
            limit={limit}
            field={draft[limit.name]}
            inherited={standing.inherited[limit.name]}
            mistake={mistakes[limit.name]}
            onChange={(field) => change(limit.name, field)}
          />
        ))}
      </div>
      <div className={classes.formFoot}>
        <ProblemNote problem={problem} />
        <Group gap="xs">
          <Button type="submit" loading={pending}>
            Save
          </Button>
          <Button variant="default" onClick={onCancel}>
            Cancel
          </Button>
        </Group>
      </div>
    </form>
  )
}

/** The first field that is wrong gets the focus: the form is longer than a screen. */
function useFocusOnMistake(mistakes: Mistakes) {
  const form = useRef<HTMLFormElement>(null)
  useEffect(() => {
    if (Object.values(mistakes).some((mistake) => mistake !== undefined)) {
      form.current?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus()
    }
  }, [mistakes])
  return form
}
