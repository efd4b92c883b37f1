/** The list in words: when a conversation was last spoken in, and what a search found. */
import type { ConversationRow } from './wire'

const DAY_MS = 86_400_000
const WEEK = 7

export interface Group {
  title: string
  rows: ConversationRow[]
}

/** In the order of the list; a group that would be empty is not there. */
export function groupsOf(rows: readonly ConversationRow[], now = new Date()): Group[] {
  const groups: Group[] = []
  for (const row of rows) {
    const title = row.pinned ? 'Pinned' : dayOf(new Date(row.updated_at), now)
    const last = groups.at(-1)
    if (last?.title === title) last.rows.push(row)
    else groups.push({ title, rows: [row] })
  }
  return groups
}

function dayOf(then: Date, now: Date): string {
  const midnight = (date: Date) => new Date(date.getFullYear(), date.getMonth(), date.getDate())
  // Days of 23 and 25 hours exist.
  const days = Math.round((midnight(now).getTime() - midnight(then).getTime()) / DAY_MS)
  if (days <= 0) return 'Today'
  if (days === 1) return 'Yesterday'
  return days < WEEK ? 'Last seven days' : 'Earlier'
}

export const titleOf = ({ title }: { title: string }) => (title === '' ? 'New chat' : title)

export interface Piece {
  text: string
  isFound: boolean
}

/** An excerpt in pieces: what stands between « and » was searched for. */
export function piecesOf(excerpt: string): Piece[] {
  return excerpt
    .split(/(«[^«»]*»)/)
    .filter((text) => text !== '')
    .map((text) =>
      /^«.*»$/s.test(text) ? { text: text.slice(1, -1), isFound: true } : { text, isFound: false },
    )
}
