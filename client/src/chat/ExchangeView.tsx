import { Button, VisuallyHidden } from '@mantine/core'
import { memo } from 'react'
import { AskCard } from '../cloud/AskCard'
import { Unrestored } from '../cloud/CloudMark'
import { CouncilView } from '../council/CouncilView'
import { VerdictView } from '../council/VerdictView'
import { AnswerFoot } from './AnswerFoot'
import { AnswerProblem } from './AnswerProblem'
import { type Answer, isOpen } from './answer'
import { BranchSwitch } from './BranchSwitch'
import type { Exchange } from './branch'
import classes from './chat.module.css'
import { Markdown } from './Markdown'
import { QuestionView } from './QuestionView'
import { Thinking } from './Thinking'
import { WaitingLine } from './WaitingLine'

interface Props {
  exchange: Exchange
  /** Asks the question once more; null where that is not on offer. */
  onRetry: ((exchange: Exchange) => void) | null
  /** Asks something else in its place. */
  onEdit?: ((exchange: Exchange, question: string) => void) | null
  /** Looks at another question or answer in the same place. */
  onSwitch?: ((key: string) => void) | null
}

/** Memoised: an exchange keeps its identity unless it changed. */
export const ExchangeView = memo(function ExchangeView(props: Props) {
  const { exchange, onRetry, onEdit = null, onSwitch = null } = props
  const { question, questions, reply } = exchange
  return (
    <article className={classes.exchange}>
      {question !== null && (
        <>
          <VisuallyHidden component="h2">You asked</VisuallyHidden>
          <QuestionView
            text={question.text}
            at={question.key}
            keys={questions}
            onEdit={onEdit && ((text) => onEdit(exchange, text))}
            onSwitch={onSwitch}
          />
        </>
      )}
      <VisuallyHidden component="h2">Answer</VisuallyHidden>
      {reply === null ? (
        <Unanswered onRetry={onRetry && (() => onRetry(exchange))} />
      ) : (
        <AnswerView
          // Another answer has a council of its own to open.
          key={reply.key}
          answer={reply.answer}
          exchange={exchange}
          onRetry={question && onRetry && (() => onRetry(exchange))}
          onSwitch={onSwitch}
        />
      )}
    </article>
  )
})

function Unanswered({ onRetry }: { onRetry: (() => void) | null }) {
  return (
    <p className={classes.waiting}>
      Nobody has answered this.{' '}
      {onRetry !== null && (
        <Button size="compact-sm" variant="default" onClick={onRetry}>
          Answer it
        </Button>
      )}
    </p>
  )
}

interface AnswerProps {
  answer: Answer
  exchange: Exchange
  onRetry: (() => void) | null
  onSwitch: ((key: string) => void) | null
}

function AnswerView({ answer, exchange, onRetry, onSwitch }: AnswerProps) {
  const over = !isOpen(answer)
  const { council, adrift } = answer
  return (
    <div className={classes.answer} data-state={answer.state}>
      {answer.state === 'waiting' && !adrift && (
        <WaitingLine since={answer.startedAt} turn={answer.turn} />
      )}
      {answer.asks !== null && !over && <AskCard key={answer.asks.token} asks={answer.asks} />}
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
      {!over && <StandingLine answer={answer} />}
      {council !== null && council.verdict !== null && (over || answer.text !== '') && (
        <VerdictView council={council} verdict={council.verdict} />
      )}
      {answer.problem !== null && <AnswerProblem problem={answer.problem} onRetry={onRetry} />}
      {over && answer.cloud !== null && <Unrestored words={answer.cloud.unrestored} />}
      {over && (
        <AnswerFoot answer={answer} onRetry={answer.problem === null ? onRetry : null}>
          <BranchSwitch
            noun="answer"
            keys={exchange.replies}
            at={exchange.reply?.key ?? ''}
            onSwitch={onSwitch}
          />
        </AnswerFoot>
      )}
    </div>
  )
}

/** Why it does not grow just now. */
function StandingLine({ answer: { adrift, paused } }: { answer: Answer }) {
  if (adrift) {
    return (
      <p className={classes.waiting} role="status" data-testid="adrift">
        The connection broke. The answer goes on at the server; trying to reach it again…
      </p>
    )
  }
  if (paused === null) return null
  return (
    <p className={classes.waiting} role="status" data-testid="paused">
      {paused === '' ? 'Paused' : `Paused: ${paused}`}
    </p>
  )
}
