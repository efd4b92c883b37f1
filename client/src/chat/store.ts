/**
 * The open conversation: the value from conversation.ts plus the one stream that may be under way.
 * It stands outside React so that tokens arriving while another page is open are kept, and so that
 * one frame costs one update.
 *
 * An answer of a stored conversation is the server's own affair: leaving it, or losing the
 * connection, ends nothing there, and `#takeUp` listens to it again, from its beginning. Only `stop`
 * ends it. A temporary chat lives here alone, and ends with its request.
 */
import { type ChatEvent, ConnectionLost, streamAnswer, streamChat } from '../api/chat'
import { asProblem } from '../api/errors'
import type { Wish } from '../cloud/wire'
import {
  answerPathOf,
  changeConversation,
  createConversation,
  pathOf,
  readConversation,
  readToLeaf,
  stopAnswer,
} from '../conversations/calls'
import type { Judgement } from '../council/council'
import { isText } from '../council/events'
import { sendFeedback } from '../council/feedback'
import type { Answer } from './answer'
import type { Exchange } from './branch'
import {
  type Action,
  type Conversation,
  EMPTY,
  endOf,
  isRunning,
  messagesFor,
  reduce,
} from './conversation'
import { FrameBatch } from './frames'
import { pause } from './pause'

/** The end of a stopped answer is awaited for so long: its last words may be on their way. */
const STOP_GRACE_MS = 1000
/** Between two tries to take up an answer: it doubles up to the other one. */
const RETRY_MS = 500
const RETRY_MS_MAX = 15_000

export class ChatStore {
  #conversation: Conversation = EMPTY
  #request: AbortController | null = null
  #stopping = false
  #nextKey = 1
  /** When what was read last was last changed. */
  #readAs = ''
  /** What stands in the composer, of each conversation. */
  readonly #drafts = new Map<string | null, string>()
  readonly #listeners = new Set<() => void>()
  readonly #onChanged: (ended: string | null) => void

  /** `onChanged` hears when the list of conversations may have changed, and in which an answer has ended. */
  constructor(onChanged: (ended: string | null) => void = () => undefined) {
    this.#onChanged = onChanged
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readonly current = (): Conversation => this.#conversation

  get draft(): string {
    return this.#drafts.get(this.#conversation.id) ?? ''
  }

  set draft(text: string) {
    if (text === '') this.#drafts.delete(this.#conversation.id)
    else this.#drafts.set(this.#conversation.id, text)
  }

  /** Opens a stored conversation. */
  open(id: string): void {
    if (id === this.#conversation.id) return
    this.#leave()
    this.#apply({ type: 'opened', serial: this.#nextKey++, id })
    void this.refresh()
  }

  /** Begins a new one. */
  clear(): void {
    this.#leave()
    this.#apply({ type: 'opened', serial: this.#nextKey++, id: null })
  }

  /** Whether a conversation that has not begun is to be stored. */
  keep(temporary: boolean): void {
    const { id, messages } = this.#conversation
    if (id === null && messages.length === 0) this.#apply({ type: 'kept', temporary })
  }

  /** What may leave the box of this conversation; throws a `Problem`, and then it is as it was. */
  async wish(cloud: Wish): Promise<void> {
    const { id, serial } = this.#conversation
    if (id !== null) await changeConversation(id, { cloud })
    if (this.#conversation.serial === serial) this.#apply({ type: 'wished', cloud })
  }

  /** The person has answered whether it may leave. */
  consented(token: string): void {
    this.#apply({ type: 'consented', token })
  }

  /** Reads again what is stored, and takes up the answer at its end if that still grows. */
  async refresh(): Promise<void> {
    await this.#read(this.#request === null ? null : this.#conversation.leaf)
    this.#takeUpIfOpen()
  }

  /** Reads the messages before the first one that is there; throws a `Problem`. */
  async earlier(): Promise<void> {
    const { id, serial, messages } = this.#conversation
    const first = messages.find((message) => message.id !== null)?.id
    if (id === null || first == null) return
    const stored = await readConversation(id, first)
    const followed = this.#request === null ? null : this.#conversation.leaf
    if (this.#conversation.serial !== serial) return
    this.#apply({ type: 'told', stored, followed, at: performance.now() })
  }

  /** Reads again where something was said elsewhere since it was read. */
  isUpdated(at: string): void {
    const { loading } = this.#conversation
    if (loading || this.#request !== null || Date.parse(at) <= Date.parse(this.#readAs)) return
    void this.refresh()
  }

  ask(question: string, model: string): void {
    if (isRunning(this.#conversation)) return
    this.#ask(question, model, endOf(this.#conversation))
  }

  /** Asks something else in the place of a question, beside it. */
  edit({ question: before }: Exchange, question: string, model: string): void {
    if (isRunning(this.#conversation) || before === null) return
    this.#ask(question, model, before.parent)
  }

  /** Answers a question once more, the last one unless another is given, with the model chosen now. */
  retry(model: string, exchange = this.#conversation.exchanges.at(-1)): void {
    const question = exchange?.question
    if (isRunning(this.#conversation) || !question) return
    if (exchange.reply !== null) regretted(exchange.reply.answer)
    const key = `new ${this.#nextKey++}`
    this.#apply({ type: 'retried', key, question: question.key, model, at: performance.now() })
    void this.#answer(model)
  }

  /** Goes to the branch of another message; the answer that is left goes on if it is stored. */
  async switchTo(key: string): Promise<void> {
    const { temporary, id } = this.#conversation
    if (temporary && isRunning(this.#conversation)) return
    this.#leave()
    this.#apply({ type: 'switched', key })
    this.#takeUpIfOpen()
    const { messages, leaf } = this.#conversation
    const leaf_id = messages.find((message) => message.key === leaf)?.id
    if (id === null || !leaf_id) return
    await changeConversation(id, { leaf_id }).catch((reason) => this.#troubled(reason))
  }

  /** Tells the server what the person thinks of a council's answer; throws a `Problem`. */
  async judge(council: string, judgement: Judgement): Promise<void> {
    await sendFeedback(council, judgement)
    this.#apply({ type: 'judged', council, judgement })
  }

  /** Ends the running answer and keeps the text so far. */
  async stop(): Promise<void> {
    const request = this.#request
    const { id, exchanges } = this.#conversation
    if (request === null) return
    const answer = exchanges.at(-1)?.reply?.id ?? null
    if (id === null || answer === null) {
      // One that the server has not named yet can only be stopped once it has; a second word drops it.
      if (this.#conversation.temporary || this.#stopping) request.abort()
      this.#stopping = true
      return
    }
    this.#stopping = true
    try {
      await stopAnswer(id, answer)
      setTimeout(() => request.abort(), STOP_GRACE_MS)
    } catch (reason) {
      this.#stopping = false
      if (this.#request === request) this.#troubled(reason)
    }
  }

  /** Ends what hangs on this page alone. */
  readonly dispose = (): void => this.#leave()

  #leave(): void {
    this.#request?.abort()
    this.#request = null
  }

  async #read(followed: string | null): Promise<void> {
    const { id, serial, messages } = this.#conversation
    if (id === null) return
    let action: Action
    try {
      const stored = await (messages.length === 0 ? readToLeaf(id) : readConversation(id))
      if (this.#conversation.serial === serial) this.#readAs = stored.updated_at
      action = { type: 'told', stored, followed, at: performance.now() }
    } catch (reason) {
      action = { type: 'troubled', problem: asProblem(reason) }
    }
    if (this.#conversation.serial === serial) this.#apply(action)
  }

  #ask(question: string, model: string, parent: string | null): void {
    const key = `new ${this.#nextKey++}`
    this.#apply({ type: 'asked', key, parent, question, model, at: performance.now() })
    void this.#answer(model)
  }

  async #answer(model: string): Promise<void> {
    const request = this.#begin()
    const { temporary } = this.#conversation
    const { signal } = request
    const events = temporary
      ? streamChat({ model, messages: messagesFor(this.#conversation), signal })
      : this.#asked(model, signal)
    const end = await this.#follow(events, request)
    if (this.#request !== request) return
    const isKnown = this.#conversation.exchanges.at(-1)?.reply?.id != null
    if (end instanceof ConnectionLost && isKnown) {
      this.#apply({ type: 'lost' })
      await this.#takeUp(request)
    } else this.#end(end, request)
  }

  #end(end: unknown, { signal }: AbortController): void {
    const at = performance.now()
    this.#request = null
    if (signal.aborted || this.#stopping) this.#apply({ type: 'ended', state: 'stopped', at })
    else if (end === null) this.#apply({ type: 'ended', state: 'complete', at })
    else this.#apply({ type: 'failed', problem: asProblem(end), at })
    this.#onChanged(this.#conversation.id)
  }

  /** Asks in a stored conversation, which begins with its first question. */
  async *#asked(model: string, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    const { exchanges, messages, id: known, cloud } = this.#conversation
    const question = exchanges.at(-1)?.question
    if (!question) return
    let id = known
    if (id === null) {
      id = (await createConversation(model, cloud)).id
      signal.throwIfAborted()
      this.#named(id)
    }
    const options = { wirthforge: { cloud_events: true } }
    if (question.id !== null) {
      const path = `${answerPathOf(id, question.id)}/answers`
      yield* streamAnswer(path, { model, options }, signal)
      return
    }
    const parent_id = messages.find(({ key }) => key === question.parent)?.id ?? null
    const asked = { parent_id, content: question.text, model, options }
    yield* streamAnswer(`${pathOf(id)}/messages`, asked, signal)
  }

  #named(id: string): void {
    const { draft } = this
    this.draft = ''
    this.#apply({ type: 'created', id })
    this.draft = draft
  }

  #takeUpIfOpen(): void {
    if (this.#request !== null || this.#conversation.temporary) return
    if (isRunning(this.#conversation)) void this.#takeUp(this.#begin())
  }

  #begin(): AbortController {
    this.#stopping = false
    this.#request = new AbortController()
    return this.#request
  }

  /** Listens to the last answer until it has ended, however often the connection breaks. */
  async #takeUp(request: AbortController): Promise<void> {
    const { signal } = request
    for (let wait = 0; ; wait = Math.min(wait * 2 || RETRY_MS, RETRY_MS_MAX)) {
      await pause(wait, signal)
      const { id, exchanges } = this.#conversation
      const answer = exchanges.at(-1)?.reply?.id
      if (this.#request !== request || id === null || answer == null) return
      const path = `${answerPathOf(id, answer)}/stream`
      const end = await this.#follow(streamAnswer(path, null, signal), request, true)
      if (this.#request !== request) return
      if (signal.aborted) return this.#end(end, request)
      if (!(end instanceof ConnectionLost)) {
        // What is stored is the truth: the numbers, and how it ended.
        await this.#read(null)
        if (this.#request !== request) return
        const { problem } = this.#conversation
        if (problem === null ? !isRunning(this.#conversation) : problem.status === 404) break
      }
      this.#apply({ type: 'lost' })
    }
    this.#request = null
    this.#onChanged(this.#conversation.id)
  }

  /** Hears one stream; what broke it off, null where it is whole. */
  async #follow(
    events: AsyncIterable<ChatEvent>,
    request: AbortController,
    isReplay = false,
  ): Promise<unknown> {
    // After clear() a late event of the old request must not reach the new conversation.
    const apply = (action: Action) => {
      if (this.#request === request) this.#apply(action)
    }
    const batch = new FrameBatch<ChatEvent>((events) =>
      apply({ type: 'received', events, at: performance.now() }),
    )
    let [isFirst, isSilent] = [true, true]
    let end: unknown = null
    try {
      for await (const event of events) {
        if (isFirst && isReplay) apply({ type: 'taken up', at: performance.now() })
        isFirst = false
        batch.add(event)
        // The place in the queue, and the first token, are shown and timed at once.
        if (isSilent) batch.flush()
        isSilent &&= !isToken(event)
        if (event.type !== 'stored' || this.#request !== request) continue
        if (event.stopped) this.#stopping = true
        else if (!isReplay) this.#hasBegun()
      }
    } catch (reason) {
      end = reason
    }
    batch.flush()
    return end
  }

  /** The server has named question and answer. */
  #hasBegun(): void {
    this.#onChanged(null)
    if (this.#stopping) void this.stop()
  }

  #troubled(reason: unknown): void {
    this.#apply({ type: 'troubled', problem: asProblem(reason) })
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
