/** The calls that read and change stored conversations; each throws a `Problem`. */
import { call } from '../api/call'
import type { Wish } from '../cloud/wire'
import type {
  ConversationChange,
  ConversationPage,
  ConversationRow,
  ImportReport,
  StoredConversation,
} from './wire'

const ALL = '/api/conversations'

export const pathOf = (id: string) => `${ALL}/${encodeURIComponent(id)}`
export const answerPathOf = (id: string, answer: string) =>
  `${pathOf(id)}/messages/${encodeURIComponent(answer)}`
export const exportPathOf = (id: string, format: 'json' | 'markdown') =>
  `${pathOf(id)}/export?format=${format}`

interface Wanted {
  search: string
  /** Where the page before ended. */
  before: string | null
  limit: number
}

export function listConversations({ search, before, limit }: Wanted): Promise<ConversationPage> {
  const query = new URLSearchParams({ limit: String(limit) })
  if (search !== '') query.set('search', search)
  if (before !== null) query.set('before', before)
  return call('GET', `${ALL}?${query}`)
}

export const createConversation = (model: string, cloud: Wish): Promise<ConversationRow> =>
  call('POST', ALL, JSON.stringify({ model, ...(cloud === null ? {} : { cloud }) }))

/** The newest messages, or those before one. */
export const readConversation = (id: string, before?: string): Promise<StoredConversation> =>
  call('GET', pathOf(id) + (before === undefined ? '' : `?before=${encodeURIComponent(before)}`))

/** Of the pages that are read to find where the person looked last. */
const PAGES_MAX = 20

/** The newest messages, back to the one where the person looked last. */
export async function readToLeaf(id: string): Promise<StoredConversation> {
  let told = await readConversation(id)
  const isThere = () => told.messages.some((message) => message.id === told.leaf_id)
  for (
    let pages = 1;
    pages < PAGES_MAX && told.more && told.leaf_id !== null && !isThere();
    pages++
  ) {
    const page = await readConversation(id, told.messages[0]?.id)
    told = { ...page, messages: [...page.messages, ...told.messages] }
  }
  return told
}

export const changeConversation = (id: string, change: ConversationChange): Promise<unknown> =>
  call('PATCH', pathOf(id), JSON.stringify(change))

export const deleteConversation = (id: string): Promise<unknown> => call('DELETE', pathOf(id))

export const stopAnswer = (id: string, answer: string): Promise<unknown> =>
  call('POST', `${answerPathOf(id, answer)}/stop`)

/** Takes in an exported file as it is. */
export const importConversations = (file: Blob): Promise<ImportReport> =>
  call('POST', `${ALL}/import`, file)
