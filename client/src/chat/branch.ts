/**
 * Questions and answers as a tree, and the one branch of it that is looked at.
 *
 * Each message knows what it follows. Messages that follow the same one are siblings: an edited
 * question stands beside the question that it replaces, a regenerated answer beside the one before.
 * A branch is what leads to its last message, the leaf; it is shown as exchanges, one question and
 * its answer each. A message is known by its key, which never changes; its id, which the server
 * chooses, comes later, or never in a temporary chat.
 */
import type { Answer } from './answer'

interface Place {
  key: string
  /** As stored; null for what is not. */
  id: string | null
  /** The key of the message before; null at the beginning. */
  parent: string | null
}

export interface Question extends Place {
  role: 'user' | 'system'
  text: string
}

export interface Reply extends Place {
  role: 'assistant'
  answer: Answer
}

export type Message = Question | Reply

/** Either may be missing: what was imported need not begin with a question, or end with an answer. */
export interface Exchange {
  key: string
  question: Question | null
  reply: Reply | null
  /** The keys of the question's siblings and its own, oldest first. */
  questions: readonly string[]
  replies: readonly string[]
}

/** The branch that ends at `leaf`. An exchange of `before` that has not changed keeps its identity. */
export function exchangesOf(
  messages: readonly Message[],
  leaf: string | null,
  before: readonly Exchange[],
): readonly Exchange[] {
  const children = childrenOf(messages)
  const among = ({ parent }: Message) => children.get(parent) ?? []
  const exchanges: Exchange[] = []
  for (const message of pathTo(messages, leaf)) {
    const last = exchanges.at(-1)
    const siblings = among(message)
    const exchange = { key: message.key, question: null, questions: [], reply: null, replies: [] }
    if (message.role !== 'assistant') {
      // A system message is for the model, not for reading.
      if (message.role === 'system') continue
      exchanges.push({ ...exchange, question: message, questions: siblings })
    } else if (last !== undefined && last.reply === null) {
      Object.assign(last, { reply: message, replies: siblings })
    } else {
      exchanges.push({ ...exchange, reply: message, replies: siblings })
    }
  }
  const known = new Map(before.map((exchange) => [exchange.key, exchange]))
  return exchanges.map((exchange) => {
    const old = known.get(exchange.key)
    return old !== undefined && isSame(old, exchange) ? old : exchange
  })
}

function isSame(one: Exchange, other: Exchange): boolean {
  return (
    one.question === other.question &&
    one.reply === other.reply &&
    one.questions.join() === other.questions.join() &&
    one.replies.join() === other.replies.join()
  )
}

export function pathTo(messages: readonly Message[], leaf: string | null): Message[] {
  const byKey = new Map(messages.map((message) => [message.key, message]))
  const path: Message[] = []
  // A message is passed once at the most, so that a ring in broken data ends.
  for (let at = byKey.get(leaf ?? ''); at !== undefined; at = byKey.get(at.parent ?? '')) {
    byKey.delete(at.key)
    path.push(at)
  }
  return path.reverse()
}

/** Where the newest branch below a message ends. */
export function newestBelow(messages: readonly Message[], key: string): string {
  const children = childrenOf(messages)
  const passed = new Set<string>()
  let at = key
  while (!passed.has(at)) {
    passed.add(at)
    at = children.get(at)?.at(-1) ?? at
  }
  return at
}

/** The keys of what follows each message, and of what follows none. */
function childrenOf(messages: readonly Message[]): Map<string | null, string[]> {
  const children = new Map<string | null, string[]>()
  for (const { key, parent } of messages) {
    const known = children.get(parent)
    if (known === undefined) children.set(parent, [key])
    else known.push(key)
  }
  return children
}
