/** What the server tells of stored conversations, as it stands on the wire. */
import type { components } from '../api/schema'

type Schemas = components['schemas']

/** One line of the list; `excerpt` is what a search found, each found word between « and ». */
export type ConversationRow = Schemas['ConversationSummary']
/** `next` asks for what comes after; null at the end. */
export type ConversationPage = Schemas['ConversationPage']
export type ConversationChange = Schemas['ConversationChange']
export type ImportReport = Schemas['ImportReport']
export type StoredMember = Schemas['MemberAnswer']

/** The server writes these words as any text. */
export type StoredMessage = Omit<Schemas['Message'], 'role' | 'state'> & {
  role: 'user' | 'assistant' | 'system'
  state: 'streaming' | 'complete' | 'stopped' | 'failed' | 'interrupted'
}

export type StoredConversation = Omit<Schemas['Conversation'], 'messages'> & {
  messages: StoredMessage[]
}
