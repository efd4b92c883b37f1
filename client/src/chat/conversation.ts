/**
 * A conversation as a value: all its messages (branch.ts), and of these the branch that is looked
 * at, as exchanges. Asking adds a question and its answer, regenerating one more answer beside the
 * one before, editing a question beside the one before; each becomes the branch that is looked at.
 * Only the last answer of it grows, and an exchange that does not change keeps its identity, so that
 * finished messages need not be drawn again.
 */
import type { ChatEvent, ChatMessage } from '../api/chat'
import type { Problem } from '../api/errors'
import type { Wish } from '../cloud/wire'
import type { StoredConversation } from '../conversations/wire'
import type { Judgement } from '../council/council'
import { type Answer, fresh, grow, isOpen } from './answer'
import { type Exchange, exchangesOf, type Message, newestBelow, pathTo, type Reply } from './branch'
import { merged } from './stored'

export interface Conversation {
  /** Another one with each conversation that is opened. */
  serial: number
  /** As stored; null as long as nothing is. */
  id: string | null
  title: string
  /** Nothing of it is stored. */
  temporary: boolean
  /** What may leave the box of it; null: as its person's rules have it. */
  cloud: Wish
  /** True until what is stored is there. */
  loading: boolean
  /** Why it could not be read or changed. */
  problem: Problem | null
  messages: readonly Message[]
  /** The last message of the branch that is looked at. */
  leaf: string | null
  hasEarlier: boolean
  /** The branch that is looked at. */
  exchanges: readonly Exchange[]
}

export type Action =
  | { type: 'opened'; serial: number; id: string | null }
  | { type: 'kept'; temporary: boolean }
  | { type: 'wished'; cloud: Wish }
  | { type: 'consented'; token: string }
  | { type: 'created'; id: string }
  | { type: 'told'; stored: StoredConversation; followed: string | null; at: number }
  | { type: 'troubled'; problem: Problem | null }
  | {
      type: 'asked'
      key: string
      parent: string | null
      question: string
      model: string
      at: number
    }
  | { type: 'retried'; key: string; question: string; model: string; at: number }
  | { type: 'taken up'; at: number }
  | { type: 'received'; events: readonly ChatEvent[]; at: number }
  | { type: 'lost' }
  | { type: 'ended'; state: 'complete' | 'stopped'; at: number }
  | { type: 'failed'; problem: Problem; at: number }
  | { type: 'switched'; key: string }
  | { type: 'judged'; council: string; judgement: Judgement }

export const EMPTY: Conversation = {
  serial: 0,
  id: null,
  title: '',
  temporary: false,
  cloud: null,
  loading: false,
  problem: null,
  messages: [],
  leaf: null,
  hasEarlier: false,
  exchanges: [],
}

export function reduce(before: Conversation, action: Action): Conversation {
  const after = changed(before, action)
  if (after.messages === before.messages && after.leaf === before.leaf) return after
  return { ...after, exchanges: exchangesOf(after.messages, after.leaf, before.exchanges) }
}

function changed(conversation: Conversation, action: Action): Conversation {
  switch (action.type) {
    case 'opened': {
      const { serial, id } = action
      return { ...EMPTY, serial, id, loading: id !== null }
    }
    case 'kept':
      return { ...conversation, temporary: action.temporary }
    case 'wished':
      return { ...conversation, cloud: action.cloud }
    case 'created':
      return { ...conversation, id: action.id }
    case 'told':
      return withTold(conversation, action)
    case 'troubled':
      return { ...conversation, problem: action.problem, loading: false }
    case 'switched':
      return { ...conversation, leaf: newestBelow(conversation.messages, action.key) }
    case 'judged':
      return withJudgement(conversation, action.council, action.judgement)
    case 'asked': {
      const { key, parent, question } = action
      const asked: Message = { key, id: null, parent, role: 'user', text: question }
      return withReply(conversation, [...conversation.messages, asked], key, action)
    }
    case 'retried':
      return withReply(conversation, withoutVain(conversation, action), action.question, action)
    default:
      return withLeaf(conversation, (reply, messages) => grown(reply, messages, action))
  }
}

type Growth = Extract<
  Action,
  { type: 'taken up' | 'consented' | 'received' | 'lost' | 'ended' | 'failed' }
>

/** The messages after something happened to the last answer. */
function grown(reply: Reply, messages: readonly Message[], action: Growth): readonly Message[] {
  const { answer } = reply
  const put = (answer: Answer) => replaced(messages, { ...reply, answer })
  switch (action.type) {
    case 'taken up':
      return put(fresh(answer.model, answer.startedAt))
    case 'consented':
      return put(answer.asks?.token === action.token ? { ...answer, asks: null } : answer)
    case 'lost':
      return put({ ...answer, adrift: true })
    case 'ended':
      return put({ ...over(answer, action.at), state: action.state })
    case 'failed':
      return put({ ...over(answer, action.at), state: 'failed', problem: action.problem })
    case 'received': {
      const more = action.events.reduce((old, event) => grow(old, event, action.at), answer)
      const stored = action.events.find((event) => event.type === 'stored')
      if (stored === undefined) return put(more)
      const named = messages.map((message) =>
        message.key === reply.parent ? { ...message, id: stored.question } : message,
      )
      return replaced(named, { ...reply, id: stored.answer, answer: more })
    }
  }
}

const over = (answer: Answer, at: number): Answer => ({
  ...answer,
  asks: null,
  adrift: false,
  totalMs: at - answer.startedAt,
})

const replaced = (messages: readonly Message[], by: Message) =>
  messages.map((message) => (message.key === by.key ? by : message))

function withLeaf(
  conversation: Conversation,
  change: (reply: Reply, messages: readonly Message[]) => readonly Message[],
): Conversation {
  const { messages, leaf } = conversation
  const last = messages.find(({ key }) => key === leaf)
  return last?.role === 'assistant'
    ? { ...conversation, messages: change(last, messages) }
    : conversation
}

/** A new answer below a question; the branch goes there. */
function withReply(
  conversation: Conversation,
  messages: readonly Message[],
  parent: string,
  { key, model, at }: { key: string; model: string; at: number },
): Conversation {
  const answer = fresh(model, at)
  const reply: Reply = { key: `${key} answer`, id: null, parent, role: 'assistant', answer }
  return { ...conversation, messages: [...messages, reply], leaf: reply.key }
}

/** An answer that brought nothing and is not stored either gives way to the next try. */
const withoutVain = ({ messages }: Conversation, { question }: { question: string }) =>
  messages.filter(
    (message) =>
      message.role !== 'assistant' ||
      message.parent !== question ||
      message.id !== null ||
      message.answer.text !== '',
  )

function withTold(
  conversation: Conversation,
  { stored, followed, at }: Extract<Action, { type: 'told' }>,
): Conversation {
  const messages = merged(conversation.messages, stored, followed, at)
  const leaf = messages.find(({ key }) => key === conversation.leaf)
  const there = messages.find(({ id }) => id !== null && id === stored.leaf_id) ?? leaf
  const isHere = leaf !== undefined && (leaf.id === null || leaf.key === followed)
  const last = there ?? messages.at(-1)
  const oldest = (list: readonly Message[]) => list.find(({ id }) => id !== null)?.id
  return {
    ...conversation,
    title: stored.title,
    cloud: stored.cloud ?? null,
    loading: false,
    problem: null,
    messages,
    leaf: isHere || last === undefined ? conversation.leaf : newestBelow(messages, last.key),
    // A page that does not hold the oldest known message says nothing of what is before that.
    hasEarlier: oldest(messages) === stored.messages[0]?.id ? stored.more : conversation.hasEarlier,
  }
}

function withJudgement(conversation: Conversation, id: string, judgement: Judgement): Conversation {
  const judged = (message: Message): Message => {
    if (message.role !== 'assistant') return message
    const { council } = message.answer
    if (council?.id !== id) return message
    return { ...message, answer: { ...message.answer, council: { ...council, judged: judgement } } }
  }
  return { ...conversation, messages: conversation.messages.map(judged) }
}

/** The answer at the end of the branch; null where there is none. */
export const lastAnswer = ({ exchanges }: Conversation): Answer | null =>
  exchanges.at(-1)?.reply?.answer ?? null

/** True while the last answer may still grow. */
export function isRunning(conversation: Conversation): boolean {
  const answer = lastAnswer(conversation)
  return answer !== null && isOpen(answer)
}

/**
 * What a next question follows: the last message, in a stored conversation the last that the server
 * knows.
 */
export function endOf({ messages, leaf, temporary }: Conversation): string | null {
  const path = pathTo(messages, leaf)
  return path.findLast(({ id }) => temporary || id !== null)?.key ?? null
}

/**
 * What the model gets to read for the last question of a temporary chat. Exchanges that brought no
 * text are left out whole: two questions in a row upset some chat templates.
 */
export function messagesFor({ exchanges }: Conversation): ChatMessage[] {
  const told = exchanges
    .slice(0, -1)
    .filter(({ reply }) => reply !== null && reply.answer.text !== '')
  const asks = ({ question }: Exchange): ChatMessage[] =>
    question === null ? [] : [{ role: 'user', content: question.text }]
  const last = exchanges.at(-1)
  return [
    ...told.flatMap((exchange): ChatMessage[] => [
      ...asks(exchange),
      { role: 'assistant', content: exchange.reply?.answer.text ?? '' },
    ]),
    ...(last === undefined ? [] : asks(last)),
  ]
}
