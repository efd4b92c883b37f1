import { Tabs } from '@mantine/core'
import { useMediaQuery } from '@mantine/hooks'
import type { Council, Member } from './council'
import classes from './council.module.css'
import { MemberCard, StateIcon } from './MemberCard'
import { memberName, shownState, stateWords } from './words'

interface Props {
  council: Council
  running: boolean
  /** Null where no choice can be told. */
  onPick: ((label: string) => void) | null
}

/** Below this, two answers beside each other are too narrow to read. */
const NARROW = '(max-width: 720px)'

/** The members beside each other, or one at a time where there is no room for that. */
export function Members(props: Props) {
  const narrow = useMediaQuery(NARROW, false, { getInitialValueInEffect: false })
  const { members } = props.council
  if (narrow && members.length > 1) return <MemberTabs {...props} />
  return (
    <div className={classes.columns} data-count={Math.min(members.length, 6)}>
      {members.map((member) => (
        <Card key={member.label} member={member} {...props} />
      ))}
    </div>
  )
}

function MemberTabs(props: Props) {
  const { members } = props.council
  const first = members.find(({ isLeader }) => isLeader) ?? members[0]
  return (
    <Tabs variant="none" defaultValue={first?.label ?? null} keepMounted={false}>
      <Tabs.List className={classes.tabs} aria-label="Members">
        {members.map((member) => (
          <MemberTab key={member.label} member={member} {...props} />
        ))}
      </Tabs.List>
      {members.map((member) => (
        <Tabs.Panel key={member.label} value={member.label}>
          <Card member={member} {...props} />
        </Tabs.Panel>
      ))}
    </Tabs>
  )
}

function MemberTab({ member, council, running }: Props & { member: Member }) {
  const { label } = member
  const name = memberName(member, council.members)
  return (
    <Tabs.Tab
      value={label}
      className={classes.tab ?? ''}
      aria-label={`${label}, ${name}, ${stateWords(member, running)}`}
    >
      <span className={classes.tabWords}>
        {label}
        <StateIcon state={shownState(member, running)} />
      </span>
    </Tabs.Tab>
  )
}

function Card({ member, council, running, onPick }: Props & { member: Member }) {
  const { judged, members } = council
  // Nothing can be better than nothing else, and who said nothing is not better.
  const answered = ({ parts }: Member) =>
    parts.some(({ role, state, text }) => role === 'member' && state === 'done' && text !== '')
  const choice = answered(member) && members.filter(answered).length > 1
  return (
    <MemberCard
      member={member}
      name={memberName(member, members)}
      running={running}
      picked={judged !== null && 'pick' in judged && judged.pick === member.label}
      onPick={choice ? onPick : null}
    />
  )
}
