import { ActionIcon, Tooltip } from '@mantine/core'
import { IconRefresh } from '@tabler/icons-react'
import type { ReactNode } from 'react'
import { CloudMark } from '../cloud/CloudMark'
import { Thumbs } from '../council/Thumbs'
import { CopyButton } from '../ui/CopyButton'
import { counted, duration } from '../ui/format'
import type { Answer } from './answer'
import classes from './chat.module.css'

interface Props {
  answer: Answer
  onRetry: (() => void) | null
  /** Stands first. */
  children?: ReactNode
}

/** What the answer took, and what can be done with it. */
export function AnswerFoot({ answer, onRetry, children }: Props) {
  const { council, state } = answer
  return (
    <div className={classes.answerFoot}>
      {children}
      {answer.cloud !== null && <CloudMark mark={answer.cloud} />}
      <span data-testid="answer-meta">{facts(answer).join(' · ')}</span>
      {answer.text !== '' && <CopyButton compact label="Copy answer" text={() => answer.text} />}
      {onRetry !== null && (
        <Tooltip label="Regenerate">
          <ActionIcon
            variant="subtle"
            color="gray"
            size="sm"
            aria-label="Regenerate"
            onClick={onRetry}
          >
            <IconRefresh size={15} />
          </ActionIcon>
        </Tooltip>
      )}
      {council !== null && council.id !== null && state === 'complete' && (
        <Thumbs council={council.id} judged={council.judged} />
      )}
    </div>
  )
}

export function facts(answer: Answer): string[] {
  const { state, model, cloud, tokens, totalMs, firstTokenMs, cutShort, pauses } = answer
  return [
    state === 'stopped' && 'stopped',
    cutShort && 'reached its length limit',
    // The cloud's mark names who answered instead of it.
    model !== '' && cloud === null && model,
    tokens !== null && counted(tokens.output, 'token'),
    totalMs !== null && duration(totalMs),
    firstTokenMs !== null && `first token after ${duration(firstTokenMs)}`,
    pauses.count > 0 && `paused ${counted(pauses.count, 'time')} for ${duration(pauses.ms)}`,
  ].filter((fact) => fact !== false)
}
