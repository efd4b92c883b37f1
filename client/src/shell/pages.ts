import type { Principal } from '../api/client'

const everyone = [
  { path: '/', title: 'Chat' },
  { path: '/sharing', title: 'Sharing' },
  { path: '/keys', title: 'API keys' },
  { path: '/usage', title: 'Usage' },
]
const admins = [
  { path: '/people', title: 'People' },
  { path: '/quotas', title: 'Quotas' },
  { path: '/engines', title: 'Engines' },
]

export const pagesFor = ({ role }: Principal) =>
  role === 'admin' ? [...everyone, ...admins] : everyone
