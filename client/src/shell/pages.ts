import type { Principal } from '../api/client'

const everyone = [
  { path: '/sharing', title: 'Sharing' },
  { path: '/keys', title: 'API keys' },
  { path: '/usage', title: 'Usage' },
  { path: '/cloud', title: 'Cloud' },
]
const admins = [
  { path: '/people', title: 'People' },
  { path: '/quotas', title: 'Quotas' },
  { path: '/engines', title: 'Engines' },
]

/** `chat` is the address of the conversation that is open. */
export const pagesFor = ({ role }: Principal, chat: string) => [
  { path: chat, title: 'Chat' },
  ...everyone,
  ...(role === 'admin' ? admins : []),
]
