import {
  IconAlertTriangle,
  IconArrowBackUp,
  IconCheck,
  IconClock,
  IconClockX,
  IconMinus,
  IconPencil,
  IconPlayerStop,
} from '@tabler/icons-react'
import { memo } from 'react'
import { Markdown } from '../chat/Markdown'
import { Thinking } from '../chat/Thinking'
import { useStickToBottom } from '../chat/useStickToBottom'
import { counted, duration } from '../ui/format'
import { currentPart, isOver, type Member, type Part } from './council'
import classes from './council.module.css'
import { PART_TITLES, type Shown, shownState, stateWords } from './words'

interface Props {
  member: Member
  /** The model, as it is told apart from the others. */
  name: string
  /** True while the council is at work. */
  running: boolean
  /** True for the one the person prefers. */
  picked: boolean
  /** Says that this one is better; null where that cannot be said. */
  onPick: ((label: string) => void) | null
}

/** One member: who it is, what it is at and why, and what it says. Memoised: most tokens are of others. */
export const MemberCard = memo(function MemberCard(props: Props) {
  const { member, name, running, picked, onPick } = props
  const { label, isLeader, joined, parts } = member
  const part = currentPart(member)
  const told = parts.filter(({ text, thinking }) => text !== '' || thinking !== '')
  return (
    <article
      className={classes.card}
      aria-label={`${label}, ${name}`}
      data-testid="member"
      data-state={shownState(member, running)}
      data-picked={picked || undefined}
    >
      <header className={classes.cardHead}>
        <span className={classes.label} aria-hidden="true">
          {label}
        </span>
        <h3 className={classes.cardName}>{name}</h3>
        {isLeader && <span className={classes.tag}>leads</span>}
        <span className={classes.state}>
          <StateIcon state={shownState(member, running)} />
          {stateWords(member, running)}
        </span>
      </header>
      {part.reason !== null && <p className={classes.reason}>{part.reason}</p>}
      {joined !== null && (
        <p className={classes.reason}>Called in later{joined === '' ? '' : `: ${joined}`}</p>
      )}
      {told.length > 0 && <MemberText parts={told} label={label} running={running} />}
      <footer className={classes.cardFoot}>
        <span>{facts(parts).join(' · ')}</span>
        {onPick !== null && (
          <button
            type="button"
            className={classes.pick}
            aria-pressed={picked}
            onClick={() => onPick(label)}
          >
            {picked && <IconCheck size={14} aria-hidden="true" />}
            {picked ? 'Your choice' : 'This one is better'}
          </button>
        )}
      </footer>
    </article>
  )
})

const ICONS: Record<Shown, typeof IconCheck> = {
  waiting: IconClock,
  answering: IconPencil,
  done: IconCheck,
  failed: IconAlertTriangle,
  revoked: IconArrowBackUp,
  late: IconClockX,
  dropped: IconMinus,
  unfinished: IconPlayerStop,
  unasked: IconMinus,
}

export function StateIcon({ state }: { state: Shown }) {
  const Icon = ICONS[state]
  return <Icon size={14} aria-hidden="true" className={classes.stateIcon} data-state={state} />
}

interface TextProps {
  parts: readonly Part[]
  label: string
  running: boolean
}

function MemberText({ parts, label, running }: TextProps) {
  // Who opens it after the end reads from the beginning.
  const { scroller, content } = useStickToBottom(running)
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must scroll by keyboard
    <section ref={scroller} className={classes.text} tabIndex={0} aria-label={`Text of ${label}`}>
      <div ref={content} data-testid="member-text">
        {parts.map((part, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: parts are only added at the end
          <div key={index}>
            {part.role !== 'member' && (
              <h4 className={classes.partTitle}>{PART_TITLES[part.role]}</h4>
            )}
            <Thinking
              text={part.thinking}
              open={running && !isOver(part.state) && part.text === ''}
            />
            <Markdown text={part.text} growing={running && !isOver(part.state)} />
          </div>
        ))}
      </div>
    </section>
  )
}

/** What it took, of all its tasks together. */
function facts(parts: readonly Part[]): string[] {
  const used = parts.flatMap(({ usage }) => (usage === null ? [] : [usage.output]))
  const times = parts.flatMap(({ totalMs }) => (totalMs === null ? [] : [totalMs]))
  const sum = (list: number[]) => list.reduce((total, one) => total + one, 0)
  return [
    used.length > 0 && counted(sum(used), 'token'),
    times.length > 0 && duration(sum(times)),
  ].filter((fact) => fact !== false)
}
