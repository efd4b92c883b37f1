/** A stand-in for stored conversations: the routes of one conversation, `c1`, fed by the test. */
import type { ConversationRow, StoredConversation, StoredMessage } from '../conversations/wire'
import { json, LiveBody } from './server'

const AT = '2026-01-02T12:00:00Z'

export const row = (id: string, more: Partial<ConversationRow> = {}): ConversationRow => ({
  id,
  title: `About ${id}`,
  model: 'small',
  pinned: false,
  running: false,
  created_at: AT,
  updated_at: AT,
  leaf_id: null,
  excerpt: null,
  ...more,
})

export const message = (
  id: string,
  parent_id: string | null,
  more: Partial<StoredMessage> = {},
): StoredMessage => ({
  id,
  parent_id,
  role: id.includes('q') ? 'user' : 'assistant',
  content: `Text of ${id}`,
  thinking: '',
  model: 'small',
  state: 'complete',
  problem: null,
  finish_reason: 'stop',
  input_tokens: 3,
  output_tokens: 5,
  first_token_ms: 100,
  total_ms: 900,
  created_at: AT,
  council: null,
  cloud: null,
  members: [],
  ...more,
})

export function stored(
  messages: StoredMessage[],
  more: Partial<StoredConversation> = {},
): StoredConversation {
  const leaf_id = messages.at(-1)?.id ?? null
  return { ...row('c1'), messages, leaf_id, more: false, cloud: null, ...more }
}

/** What is there: change it, and the next call tells it so. */
export class Shelf {
  rows: ConversationRow[] = []
  conversation = stored([])
  /** The stream that was opened last. */
  body = new LiveBody()
  /** Which rows the next question and its answer become. */
  question = 'q1'
  answer = 'a1'

  readonly #stream = ({ signal }: { signal: AbortSignal }) => {
    this.body = new LiveBody()
    const response = this.body.response(signal)
    const conversation = { id: 'c1', question_id: this.question, answer_id: this.answer }
    this.body.data({ wirthforge: { conversation } })
    return response
  }

  readonly routes = {
    'GET /api/conversations': () => json({ conversations: this.rows, next: null }),
    'POST /api/conversations': () => json(row('c1'), 201),
    'GET /api/conversations/c1': () => json(this.conversation),
    'PATCH /api/conversations/c1': () => json(row('c1')),
    'POST /api/conversations/c1/messages': this.#stream,
    'POST /api/conversations/c1/messages/q1/answers': this.#stream,
    'GET /api/conversations/c1/messages/a1/stream': this.#stream,
    'POST /api/conversations/c1/messages/a1/stop': () => json(null, 204),
  }
}
