/** What the server tells of stored conversations, as it stands on the wire. */
import type { components } from '../api/schema'
import type { Wish } from '../cloud/wire'

type Schemas = components['schemas']

/** One line of the list; `excerpt` is what a search found, each found word between « and ». */
export type ConversationRow = Schemas['ConversationSummary']
/** `next` asks for what comes after; null at the end. */
export type ConversationPage = Schemas['ConversationPage']
export type ConversationChange = Schemas['ConversationChange']
export type ImportReport = Schemas['ImportReport']
/** `thinking` is there where the server keeps it. */
export type StoredMember = Schemas['MemberAnswer'] & { thinking?: string }

/** The server writes these words as any text. */
export type StoredMessage = Omit<Schemas['Message'], 'role' | 'state' | 'members'> & {
  members: StoredMember[]
  /** What its person said of a council's answer, where the server tells it. */
  feedback?: { pick?: string | null; thumb?: 'up' | 'down' | null } | null
  role: 'user' | 'assistant' | 'system'
  state: 'streaming' | 'complete' | 'stopped' | 'failed' | 'interrupted'
}

export type StoredConversation = Omit<Schemas['Conversation'], 'messages' | 'cloud'> & {
  messages: StoredMessage[]
  cloud: Wish
}
