import { VisuallyHidden } from '@mantine/core'
import { memo } from 'react'
import { CouncilView } from '../council/CouncilView'
import { VerdictView } from '../council/VerdictView'
import { AnswerFoot } from './AnswerFoot'
import { AnswerProblem } from './AnswerProblem'
import classes from './chat.module.css'
import type { Answer, Exchange } from './conversation'
import { Markdown } from './Markdown'
import { Thinking } from './Thinking'
import { WaitingLine } from './WaitingLine'

interface Props {
  exchange: Exchange
  /** Asks the question once more; null where that is not on offer. */
  onRetry: (() => void) | null
}

/** Memoised: an exchange keeps its identity unless it changed. */
export const ExchangeView = memo(function ExchangeView({ exchange, onRetry }: Props) {
  const { question, answer } = exchange
  return (
    <article className={classes.exchange}>
      <VisuallyHidden component="h2">You asked</VisuallyHidden>
      <p className={classes.question} data-testid="question">
        {question}
      </p>
      <VisuallyHidden component="h2">Answer</VisuallyHidden>
      <AnswerView answer={answer} onRetry={onRetry} />
    </article>
  )
})

function AnswerView({ answer, onRetry }: { answer: Answer; onRetry: Props['onRetry'] }) {
  const over = answer.state !== 'waiting' && answer.state !== 'streaming'
  const { council } = answer
  return (
    <div className={classes.answer} data-state={answer.state}>
      {answer.state === 'waiting' && <WaitingLine since={answer.startedAt} turn={answer.turn} />}
      {council !== null && (
        <CouncilView
          council={council}
          running={!over}
          complete={answer.state === 'complete'}
          answered={answer.text !== ''}
        />
      )}
      <Thinking text={answer.thinking} open={!over && answer.text === ''} />
      <div data-testid="answer" hidden={answer.text === ''}>
        <Markdown text={answer.text} growing={!over} />
      </div>
      {answer.paused !== null && !over && (
        <p className={classes.waiting} role="status" data-testid="paused">
          {answer.paused === '' ? 'Paused' : `Paused: ${answer.paused}`}
        </p>
      )}
      {council !== null && council.verdict !== null && (over || answer.text !== '') && (
        <VerdictView council={council} verdict={council.verdict} />
      )}
      {answer.problem !== null && <AnswerProblem problem={answer.problem} onRetry={onRetry} />}
      {over && <AnswerFoot answer={answer} onRetry={answer.problem === null ? onRetry : null} />}
    </div>
  )
}
