/**
 * A conversation as a value.
 *
 * It is a list of exchanges, one question and its answer each, because that is
 * what every operation is about: asking adds one, regenerating replaces the
 * answer of the last one. An answer is `waiting` until its first token,
 * `streaming` until it ends, and then one of `complete`, `stopped`, `failed`.
 * Only the last answer ever changes (but for what a person says of an earlier
 * one), and an exchange that does not change keeps its identity, so that finished
 * messages need not be drawn again.
 */
import type { ChatEvent, ChatMessage } from '../api/chat'
import type { Problem } from '../api/errors'
import { type Council, heard, type Judgement } from '../council/council'
import { isRestart, isText } from '../council/events'
import { type Turn, told } from '../ui/turn'

type AnswerState = 'waiting' | 'streaming' | 'complete' | 'stopped' | 'failed'

export interface Answer {
  state: AnswerState
  model: string
  text: string
  thinking: string
  /** The council that makes the answer; null where one model does. */
  council: Council | null
  startedAt: number
  /** Where it stood in the queue when the server last told; null if it never had to wait. */
  turn: Turn | null
  /** Why it does not grow just now; null while it does. */
  paused: string | null
  /** How often it was paused, and for how long in all. */
  pauses: { count: number; ms: number }
  firstTokenMs: number | null
  totalMs: number | null
  tokens: { input: number; output: number } | null
  /** The engine ended the answer because it may not grow longer. */
  cutShort: boolean
  problem: Problem | null
}

export interface Exchange {
  id: number
  question: string
  answer: Answer
}

export interface Conversation {
  exchanges: readonly Exchange[]
}

export type Action =
  | { type: 'asked'; id: number; question: string; model: string; at: number }
  | { type: 'retried'; model: string; at: number }
  | { type: 'received'; events: readonly ChatEvent[]; at: number }
  | { type: 'ended'; state: 'complete' | 'stopped'; at: number }
  | { type: 'failed'; problem: Problem; at: number }
  | { type: 'judged'; council: string; judgement: Judgement }
  | { type: 'cleared' }

export const EMPTY: Conversation = { exchanges: [] }

export function reduce(conversation: Conversation, action: Action): Conversation {
  switch (action.type) {
    case 'cleared':
      return EMPTY
    case 'asked': {
      const { id, question, model, at } = action
      const exchange = { id, question, answer: fresh(model, at) }
      return { exchanges: [...conversation.exchanges, exchange] }
    }
    case 'retried':
      return withLastAnswer(conversation, () => fresh(action.model, action.at))
    case 'received':
      return withLastAnswer(conversation, (answer) =>
        action.events.reduce((grown, event) => grow(grown, event, action.at), answer),
      )
    case 'judged':
      return withJudgement(conversation, action.council, action.judgement)
    case 'ended':
      return withLastAnswer(conversation, (answer) => ({
        ...answer,
        state: action.state,
        totalMs: action.at - answer.startedAt,
      }))
    case 'failed':
      return withLastAnswer(conversation, (answer) => ({
        ...answer,
        state: 'failed',
        problem: action.problem,
        totalMs: action.at - answer.startedAt,
      }))
  }
}

function fresh(model: string, at: number): Answer {
  return {
    state: 'waiting',
    model,
    text: '',
    thinking: '',
    council: null,
    startedAt: at,
    turn: null,
    paused: null,
    pauses: { count: 0, ms: 0 },
    firstTokenMs: null,
    totalMs: null,
    tokens: null,
    cutShort: false,
    problem: null,
  }
}

function grow(answer: Answer, event: ChatEvent, at: number): Answer {
  switch (event.type) {
    case 'queue': {
      const waitMs = event.waitSeconds === null ? null : event.waitSeconds * 1000
      return { ...answer, turn: told(answer.turn, event.ahead, waitMs, at) }
    }
    case 'turn':
      return { ...answer, turn: null }
    case 'paused':
      return { ...answer, paused: event.why }
    case 'resumed':
      return { ...answer, paused: null, pauses: { count: event.pauses, ms: event.pausedMs } }
    case 'delta':
      return {
        ...begun(answer, at),
        text: answer.text + event.text,
        // What a council's members write comes as events, and there once more for other clients.
        thinking: answer.council === null ? answer.thinking + event.thinking : '',
      }
    case 'council': {
      const council = heard(answer.council, event.told)
      const grown = isText(event.told) ? begun(answer, at) : answer
      const thinking = council === null ? answer.thinking : ''
      return { ...grown, council, thinking, text: isRestart(event.told) ? '' : grown.text }
    }
    case 'finish':
      return { ...answer, cutShort: event.reason === 'length' }
    case 'usage':
      return { ...answer, tokens: { input: event.input, output: event.output } }
  }
}

/** The answer with its first token, or one more. */
function begun(answer: Answer, at: number): Answer {
  const firstTokenMs = answer.firstTokenMs ?? at - answer.startedAt
  return { ...answer, state: 'streaming', paused: null, firstTokenMs }
}

function withJudgement(
  { exchanges }: Conversation,
  id: string,
  judgement: Judgement,
): Conversation {
  const judged = (exchange: Exchange): Exchange => {
    const { council } = exchange.answer
    if (council?.id !== id) return exchange
    const answer = { ...exchange.answer, council: { ...council, judged: judgement } }
    return { ...exchange, answer }
  }
  return { exchanges: exchanges.map(judged) }
}

function withLastAnswer(
  conversation: Conversation,
  change: (answer: Answer) => Answer,
): Conversation {
  const last = conversation.exchanges.at(-1)
  if (last === undefined) return conversation
  const changed = { ...last, answer: change(last.answer) }
  return { exchanges: [...conversation.exchanges.slice(0, -1), changed] }
}

/** True while the last answer may still grow. */
export function isRunning({ exchanges }: Conversation): boolean {
  const state = exchanges.at(-1)?.answer.state
  return state === 'waiting' || state === 'streaming'
}

/**
 * What the model gets to read for the last question. Exchanges that brought no
 * text are left out whole: two questions in a row upset some chat templates.
 */
export function messagesFor({ exchanges }: Conversation): ChatMessage[] {
  const last = exchanges.at(-1)
  if (last === undefined) return []
  const told = exchanges.slice(0, -1).filter(({ answer }) => answer.text !== '')
  return [
    ...told.flatMap(({ question, answer }): ChatMessage[] => [
      { role: 'user', content: question },
      { role: 'assistant', content: answer.text },
    ]),
    { role: 'user', content: last.question },
  ]
}
