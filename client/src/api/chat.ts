/**
 * One streamed answer: of /v1/chat/completions, which stores nothing, or of a stored conversation,
 * which streams the same and says first which rows question and answer have become.
 *
 * The wire format is OpenAI's and is read defensively: engines differ in which
 * fields they send, so anything missing is skipped rather than trusted. The
 * stream counts as whole only after `[DONE]` or a finish reason; a connection
 * that ends before that is a problem, or half an answer would pass for one.
 *
 * A request that has to wait gets its stream early, with a comment about every
 * second (`: queue ahead=2 wait_s=14`) until it is its turn
 * (`: queue done`). An answer may be interrupted: `: paused …` about every second
 * says so, `: resumed pauses=1 paused_ms=1840` that it goes on.
 *
 * Whether the request may leave the box is asked in `wirthforge.cloud.asks` (null: no more), and
 * whose answer it is, where a cloud gave it, told in `wirthforge.cloud`.
 *
 * What a council tells stands in the extension `wirthforge.council` of a chunk; it
 * is handed on before the text of that chunk, and read by council/events.ts.
 */

import { type Asks, asksOf } from '../cloud/wire'
import { reportStatus } from './client'
import { asProblem, isRecord, messageOf, Problem, problemOf } from './errors'
import { readEvents } from './sse'

export interface ChatMessage {
  role: 'user' | 'assistant'
  content: string
}

export type ChatEvent =
  | { type: 'stored'; question: string; answer: string; stopped: boolean }
  | { type: 'queue'; ahead: number; waitSeconds: number | null }
  | { type: 'turn' }
  | { type: 'paused'; why: string }
  | { type: 'resumed'; pauses: number; pausedMs: number }
  | { type: 'delta'; text: string; thinking: string }
  | { type: 'council'; told: Record<string, unknown> }
  | { type: 'asks'; asks: Asks | null }
  | { type: 'cloud'; told: Record<string, unknown> }
  | { type: 'finish'; reason: string }
  | { type: 'usage'; input: number; output: number }

/** No answer came, or it broke off on its way: what was asked may go on without this page. */
export class ConnectionLost extends Problem {}

export interface ChatRequest {
  model: string
  messages: ChatMessage[]
  signal: AbortSignal
}

export const streamChat = ({ model, messages, signal }: ChatRequest): AsyncGenerator<ChatEvent> =>
  streamAnswer(
    '/v1/chat/completions',
    {
      model,
      messages,
      stream: true,
      stream_options: { include_usage: true },
      // Nothing of it is stored, and nothing of it leaves.
      wirthforge: { cloud: 'private' },
    },
    signal,
  )

/** Asks with a body; without one it listens to an answer that is under way. */
export async function* streamAnswer(
  path: string,
  asked: unknown,
  signal: AbortSignal,
): AsyncGenerator<ChatEvent> {
  const body = await open(path, asked, signal)
  let whole = false
  try {
    for await (const { kind, text } of readEvents(body)) {
      if (kind === 'event' && text === '[DONE]') return
      for (const event of kind === 'event' ? eventsOf(text) : commentOf(text)) {
        whole ||= event.type === 'finish'
        yield event
      }
    }
  } catch (reason) {
    if (signal.aborted || reason instanceof Problem) throw reason
    throw new ConnectionLost('The connection broke before the answer was complete.')
  }
  if (!whole) throw new ConnectionLost('The connection ended before the answer was complete.')
}

async function open(path: string, asked: unknown, signal: AbortSignal) {
  let response: Response
  try {
    response = await fetch(path, {
      credentials: 'same-origin',
      signal,
      ...(asked !== null && {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(asked),
      }),
    })
  } catch (reason) {
    throw signal.aborted ? reason : new ConnectionLost(asProblem(reason).message)
  }
  if (response.ok && response.body !== null) return response.body
  reportStatus(response.status)
  throw problemOf(response, await response.json().catch(() => null))
}

/** The place in the queue that a comment tells; other comments only keep the line open. */
function commentOf(comment: string): ChatEvent[] {
  const [word, ...fields] = comment.trim().split(/\s+/)
  if (word === 'paused') return [{ type: 'paused', why: fields.join(' ') }]
  const told = new Map(fields.map((field) => field.split('=', 2) as [string, string]))
  if (word === 'resumed') {
    const [pauses, pausedMs] = [wholeOf(told.get('pauses')), wholeOf(told.get('paused_ms'))]
    return pauses === null || pausedMs === null ? [] : [{ type: 'resumed', pauses, pausedMs }]
  }
  if (word !== 'queue') return []
  if (fields[0] === 'done') return [{ type: 'turn' }]
  const ahead = wholeOf(told.get('ahead'))
  if (ahead === null) return []
  return [{ type: 'queue', ahead, waitSeconds: wholeOf(told.get('wait_s')) }]
}

/** What one `data` field says; throws when it is an error event. */
function eventsOf(data: string): ChatEvent[] {
  const chunk = parse(data)
  if (!isRecord(chunk)) return []
  if (chunk.error) throw new Problem(messageOf(chunk) ?? 'The engine failed without a reason.')

  const events: ChatEvent[] = []
  const { council, conversation, cloud } = isRecord(chunk.wirthforge) ? chunk.wirthforge : {}
  if (isRecord(conversation)) {
    const [question, answer] = [textOf(conversation.question_id), textOf(conversation.answer_id)]
    events.push({ type: 'stored', question, answer, stopped: conversation.state === 'stopped' })
  }
  if (isRecord(council)) events.push({ type: 'council', told: council })
  if (isRecord(cloud)) {
    const isQuestion = cloud.asks !== undefined
    if (isQuestion) events.push({ type: 'asks', asks: asksOf(cloud.asks) })
    else events.push({ type: 'cloud', told: cloud })
  }
  const choice: unknown = Array.isArray(chunk.choices) ? chunk.choices[0] : null
  if (isRecord(choice)) {
    const delta = isRecord(choice.delta) ? choice.delta : {}
    const text = textOf(delta.content)
    const thinking = textOf(delta.reasoning_content)
    if (text !== '' || thinking !== '') events.push({ type: 'delta', text, thinking })
    const reason = choice.finish_reason
    if (typeof reason === 'string') events.push({ type: 'finish', reason })
  }
  if (isRecord(chunk.usage)) {
    const input = countOf(chunk.usage.prompt_tokens)
    const output = countOf(chunk.usage.completion_tokens)
    events.push({ type: 'usage', input, output })
  }
  return events
}

function parse(data: string): unknown {
  try {
    return JSON.parse(data)
  } catch {
    throw new Problem('The server sent something that is not part of an answer.')
  }
}

const textOf = (value: unknown) => (typeof value === 'string' ? value : '')
const wholeOf = (value = '') => (/^\d+$/.test(value) ? Number(value) : null)
const countOf = (value: unknown) => (typeof value === 'number' ? value : 0)
