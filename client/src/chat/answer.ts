/**
 * An answer as a value: `waiting` until its first token, `streaming` until it ends, and then one of
 * `complete`, `stopped` (by its person), `failed` (its problem says why) and `interrupted` (the
 * server went away while it wrote).
 */
import type { ChatEvent } from '../api/chat'
import type { Problem } from '../api/errors'
import { type Asks, type Mark, markOf } from '../cloud/wire'
import { type Council, heard } from '../council/council'
import { isRestart, isText } from '../council/events'
import { type Turn, told } from '../ui/turn'

type State = 'waiting' | 'streaming' | 'complete' | 'stopped' | 'failed' | 'interrupted'

export interface Answer {
  state: State
  model: string
  text: string
  thinking: string
  /** The council that makes the answer; null where one model does. */
  council: Council | null
  /** Whether it may leave the box is asked; null while nothing is. */
  asks: Asks | null
  /** Whose answer it is, where a cloud gives it. */
  cloud: Mark | null
  startedAt: number
  /** Where it stood in the queue when the server last told; null if it never had to wait. */
  turn: Turn | null
  /** Why it does not grow just now; null while it does. */
  paused: string | null
  /** How often it was paused, and for how long in all. */
  pauses: { count: number; ms: number }
  /** True while the connection is broken: the answer goes on at the server, unseen. */
  adrift: boolean
  firstTokenMs: number | null
  totalMs: number | null
  tokens: { input: number; output: number } | null
  /** The engine ended the answer because it may not grow longer. */
  cutShort: boolean
  problem: Problem | null
}

export function fresh(model: string, at: number): Answer {
  return {
    state: 'waiting',
    model,
    text: '',
    thinking: '',
    council: null,
    asks: null,
    cloud: null,
    startedAt: at,
    turn: null,
    paused: null,
    pauses: { count: 0, ms: 0 },
    adrift: false,
    firstTokenMs: null,
    totalMs: null,
    tokens: null,
    cutShort: false,
    problem: null,
  }
}

/** True while it may still grow. */
export const isOpen = ({ state }: Answer) => state === 'waiting' || state === 'streaming'

export function grow(answer: Answer, event: ChatEvent, at: number): Answer {
  switch (event.type) {
    case 'stored':
      return answer
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
    case 'asks':
      return { ...answer, asks: event.asks }
    case 'cloud':
      return { ...answer, cloud: markOf(event.told, answer.cloud) }
    case 'finish':
      return { ...answer, cutShort: event.reason === 'length' }
    case 'usage':
      return { ...answer, tokens: { input: event.input, output: event.output } }
  }
}

/** The answer with its first token, or one more. */
function begun(answer: Answer, at: number): Answer {
  const firstTokenMs = answer.firstTokenMs ?? at - answer.startedAt
  return { ...answer, state: 'streaming', asks: null, paused: null, firstTokenMs }
}
