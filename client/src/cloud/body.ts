/** The exact body that would leave, taken apart for reading. Nothing of it is left out. */
import { isRecord } from '../api/errors'

export interface Block {
  title: string
  text: string
}

/** Messages as one reads them, and all the rest as it is written. What is no JSON is one block. */
export function blocksOf(body: string): Block[] {
  let told: unknown
  try {
    told = JSON.parse(body)
  } catch {
    return [{ title: 'Body', text: body }]
  }
  if (!isRecord(told)) return [{ title: 'Body', text: body }]
  const { messages, system, ...rest } = told
  const blocks: Block[] = []
  if (typeof system === 'string') blocks.push({ title: 'system', text: system })
  else if (system !== undefined) blocks.push({ title: 'system', text: pretty(system) })
  if (Array.isArray(messages)) blocks.push(...messages.map(blockOf))
  else if (messages !== undefined) blocks.push({ title: 'messages', text: pretty(messages) })
  if (Object.keys(rest).length > 0) blocks.push({ title: 'and beside them', text: pretty(rest) })
  return blocks
}

function blockOf(message: unknown): Block {
  if (!isRecord(message)) return { title: 'message', text: pretty(message) }
  const { role, content, ...rest } = message
  const title = typeof role === 'string' ? role : 'message'
  const isPlain = typeof content === 'string' && Object.keys(rest).length === 0
  return { title, text: isPlain ? content : pretty({ content, ...rest }) }
}

const pretty = (value: unknown) => JSON.stringify(value, null, 2)

export interface Piece {
  text: string
  isFound: boolean
}

/** A text in pieces: what was found in it stands apart. */
export function piecesOf(text: string, found: readonly string[]): Piece[] {
  const words = [...new Set(found)].filter((word) => word !== '')
  if (words.length === 0) return [{ text, isFound: false }]
  // The longest first: one may begin with another.
  words.sort((one, other) => other.length - one.length)
  const pattern = new RegExp(`(${words.map(escaped).join('|')})`)
  return text
    .split(pattern)
    .map((piece, at) => ({ text: piece, isFound: at % 2 === 1 }))
    .filter((piece) => piece.text !== '')
}

const escaped = (word: string) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
