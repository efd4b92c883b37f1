/**
 * The running conversation: the value from conversation.ts plus the one request
 * that may be under way. It stands outside React so that tokens arriving while
 * another page is open are kept, and so that one frame costs one update.
 */
import { type ChatEvent, streamChat } from '../api/chat'
import { asProblem } from '../api/errors'
import type { Judgement } from '../council/council'
import { isText } from '../council/events'
import { sendFeedback } from '../council/feedback'
import {
  type Action,
  type Answer,
  type Conversation,
  EMPTY,
  isRunning,
  messagesFor,
  reduce,
} from './conversation'
import { FrameBatch } from './frames'

export class ChatStore {
  /** What stands in the composer, kept over a visit to another page. */
  draft = ''

  #conversation: Conversation = EMPTY
  #request: AbortController | null = null
  #nextId = 1
  readonly #listeners = new Set<() => void>()

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readonly current = (): Conversation => this.#conversation

  ask(question: string, model: string): void {
    if (isRunning(this.#conversation)) return
    this.#apply({ type: 'asked', id: this.#nextId++, question, model, at: performance.now() })
    void this.#answer(model)
  }

  /** Answers the last question once more, with the model chosen now. */
  retry(model: string): void {
    const before = this.#conversation.exchanges.at(-1)?.answer
    if (isRunning(this.#conversation) || before === undefined) return
    regretted(before)
    this.#apply({ type: 'retried', model, at: performance.now() })
    void this.#answer(model)
  }

  /** Tells the server what the person thinks of a council's answer; throws a `Problem`. */
  async judge(council: string, judgement: Judgement): Promise<void> {
    await sendFeedback(council, judgement)
    this.#apply({ type: 'judged', council, judgement })
  }

  /** Ends the running answer and keeps the text so far. */
  stop(): void {
    this.#request?.abort()
  }

  clear(): void {
    this.stop()
    this.#request = null
    this.#apply({ type: 'cleared' })
  }

  async #answer(model: string): Promise<void> {
    const request = new AbortController()
    this.#request = request
    // After clear() a late event of the old request must not reach the new conversation.
    const apply = (action: Action) => {
      if (this.#request === request) this.#apply(action)
    }
    const batch = new FrameBatch<ChatEvent>((events) =>
      apply({ type: 'received', events, at: performance.now() }),
    )
    let first = true
    let end: Action
    try {
      const messages = messagesFor(this.#conversation)
      for await (const event of streamChat({ model, messages, signal: request.signal })) {
        batch.add(event)
        // The place in the queue, and the first token, are shown and timed at once.
        if (first) batch.flush()
        first &&= !isToken(event)
      }
      end = { type: 'ended', state: 'complete', at: performance.now() }
    } catch (reason) {
      const at = performance.now()
      end = request.signal.aborted
        ? { type: 'ended', state: 'stopped', at }
        : { type: 'failed', problem: asProblem(reason), at }
    }
    batch.flush()
    apply(end)
  }

  #apply(action: Action): void {
    this.#conversation = reduce(this.#conversation, action)
    for (const listener of this.#listeners) listener()
  }
}

const isToken = (event: ChatEvent) =>
  event.type === 'delta' || (event.type === 'council' && isText(event.told))

/**
 * That a whole answer was not wanted teaches the server something, unless the
 * person has said more about it. Nobody asked for this request, so nobody is
 * told when it fails.
 */
function regretted({ state, council }: Answer): void {
  if (state !== 'complete' || council === null || council.id === null || council.judged !== null)
    return
  sendFeedback(council.id, { regenerated: true }).catch(() => undefined)
}
