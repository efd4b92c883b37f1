import { Progress, Text } from '@mantine/core'
import { Loaded } from '../ui/Page'
import { Section } from '../ui/Section'
import { useResource } from '../ui/useResource'
import { useCloud } from './CloudContext'
import { readStanding, setOwnRule } from './calls'
import classes from './cloud.module.css'
import { InForce } from './InForce'
import { Problems } from './Problems'
import { RuleForm } from './RuleForm'
import type { Budget, Standing } from './wire'
import { budgetSentence, standingSentence } from './words'

/** What may leave of one's own requests: in one sentence, as one wants it, and as it is in force. */
export function OwnCloud() {
  const standing = useResource(readStanding)
  const { reload } = useCloud()
  const changed = () => {
    standing.reload()
    reload()
  }
  return (
    <Loaded resource={standing}>{(told) => <View standing={told} onChanged={changed} />}</Loaded>
  )
}

function View({ standing, onChanged }: { standing: Standing; onChanged: () => void }) {
  return (
    <>
      <p className={classes.sentence} data-testid="cloud-sentence">
        {standingSentence(standing)}
      </p>
      <Problems of={standing.problems} />
      <Section title="Your rule">
        <RuleForm
          scope="own"
          rule={standing.own}
          label="Your rule"
          onSave={async (rule) => {
            await setOwnRule(rule)
            onChanged()
          }}
        />
      </Section>
      <Section title="In force">
        <Text size="sm" c="dimmed">
          Of all who say something the strictest counts. Nobody can loosen your rule.
        </Text>
        {standing.in_force.length === 0 ? (
          <Text size="sm">There is no provider, so there is nothing that could be in force.</Text>
        ) : (
          <InForce standing={standing} />
        )}
      </Section>
      <Section title="Your budget for clouds">
        <BudgetView budget={standing.budget} />
      </Section>
    </>
  )
}

function BudgetView({ budget }: { budget: Budget }) {
  const { limit_micros, spent_micros, reserved_micros } = budget
  const part = (amount: number) => (amount / Math.max(1, limit_micros ?? 1)) * 100
  return (
    <div data-testid="cloud-budget">
      {limit_micros !== null && limit_micros > 0 && (
        <Progress.Root size="sm" aria-hidden="true" mb={6}>
          <Progress.Section value={Math.min(100, part(spent_micros))} />
          <Progress.Section value={Math.min(100, part(reserved_micros))} color="gray" />
        </Progress.Root>
      )}
      <Text size="sm">{budgetSentence(budget)}</Text>
    </div>
  )
}
