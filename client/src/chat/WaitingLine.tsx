import { VisuallyHidden } from '@mantine/core'
import { type Turn, turnWords } from '../ui/turn'
import { useNow } from '../ui/useNow'
import { useSlowly } from '../ui/useSlowly'
import type { Answer } from './answer'
import classes from './chat.module.css'

/** The server tells about every second; after so long without a word the wait in the queue is over. */
const STALE_MS = 3500
const SPEAK_EVERY_MS = 8000
const FIRST_TOKEN = 'Waiting for the first token…'

function queued(turn: Turn | null, now: number): turn is Turn {
  return turn !== null && now - turn.toldAt < STALE_MS
}

interface Props {
  since: number
  turn: Turn | null
}

/** Says the truth about the time before the first token: whose turn it is, or how long it has been. */
export function WaitingLine({ since, turn }: Props) {
  const now = useNow()
  const seconds = Math.max(0, Math.floor((now - (turn?.toldAt ?? since)) / 1000))
  return (
    // Not for ears: it changes every second. WaitingVoice speaks.
    <p className={classes.waiting} data-testid="waiting" aria-live="off">
      {queued(turn, now) ? (
        turnWords(turn, now)
      ) : (
        <>
          {FIRST_TOKEN} <span aria-hidden="true">{seconds} s</span>
        </>
      )}
    </p>
  )
}

/** The same for screen readers, every few seconds. It stands outside the log, which is silent while busy. */
export function WaitingVoice({ answer }: { answer: Answer | null }) {
  const turn = answer?.state === 'waiting' ? answer.turn : null
  const now = useNow(turn === null ? 0 : 1000)
  const words = turn === null ? '' : queued(turn, now) ? turnWords(turn, now) : FIRST_TOKEN
  const spoken = useSlowly(words, SPEAK_EVERY_MS)
  return (
    <VisuallyHidden role="status" data-testid="waiting-voice">
      {words === '' ? '' : spoken}
    </VisuallyHidden>
  )
}
