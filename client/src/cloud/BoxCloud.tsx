import { Switch, Text } from '@mantine/core'
import { Link } from 'wouter'
import { useModels } from '../chat/ModelProvider'
import { Loaded } from '../ui/Page'
import { ProblemNote } from '../ui/ProblemNote'
import { Section } from '../ui/Section'
import { useAction } from '../ui/useAction'
import { useResource } from '../ui/useResource'
import { Caps } from './Caps'
import { useCloud } from './CloudContext'
import { readBox, setBoxRule } from './calls'
import classes from './cloud.module.css'
import { Problems } from './Problems'
import { Providers } from './Providers'
import { RuleForm } from './RuleForm'
import type { BoxRule } from './wire'

/** What an admin says for everybody. */
export function BoxCloud() {
  const box = useResource(readBox)
  const cloud = useCloud()
  const changed = () => {
    box.reload()
    cloud.reload()
  }
  return <Loaded resource={box}>{(told) => <View box={told} onChanged={changed} />}</Loaded>
}

function View({ box, onChanged }: { box: BoxRule; onChanged: () => void }) {
  const { models } = useModels()
  const single = models?.filter(({ council }) => !council).map(({ id }) => id) ?? []
  return (
    <>
      <OnOff box={box} onChanged={onChanged} />
      <Problems of={box.problems} />
      <Providers onChanged={onChanged} />
      <Section title="The box’s rule">
        <RuleForm
          // The switch above changes it too.
          key={String(box.policy.is_on)}
          scope="box"
          rule={box.policy}
          label="The box’s rule"
          models={single}
          onSave={async (rule) => {
            await setBoxRule(rule)
            onChanged()
          }}
        />
      </Section>
      <Section title="Bounds of single people">
        <Caps caps={box.caps} onChanged={onChanged} />
      </Section>
      <Text size="sm" c="dimmed">
        How much somebody may spend on clouds is a <Link href="/quotas">quota</Link>: cents for the
        cloud per month. Without one nothing of theirs leaves.
      </Text>
    </>
  )
}

function OnOff({ box, onChanged }: { box: BoxRule; onChanged: () => void }) {
  const isOn = box.policy.is_on === true
  const [turn, { pending, problem }] = useAction(async (to: boolean) => {
    await setBoxRule({ ...box.policy, is_on: to })
    onChanged()
  })
  return (
    <div className={classes.onOff}>
      <Switch
        size="md"
        label={isOn ? 'The cloud is on' : 'The cloud is off'}
        description={
          isOn
            ? 'Requests may leave as far as the rules below and people’s own let them.'
            : 'Nothing leaves this box, whatever any rule says.'
        }
        checked={isOn}
        disabled={pending}
        onChange={(event) => void turn(event.currentTarget.checked)}
      />
      <ProblemNote problem={problem} />
    </div>
  )
}
