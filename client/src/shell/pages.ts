import type { Principal } from '../api/client'

const everyone = [
  { path: '/', title: 'Chat' },
  { path: '/keys', title: 'API keys' },
  { path: '/usage', title: 'Usage' },
]
const admins = [{ path: '/people', title: 'People' }]

export const pagesFor = ({ role }: Principal) =>
  role === 'admin' ? [...everyone, ...admins] : everyone
