/** Days as they are written in a report: 2026-11-01, of the calendar of whoever asks. */

const DAY_MS = 86_400_000

/** The zone whose days are asked for. */
export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'

const iso = (utcMs: number) => new Date(utcMs).toISOString().slice(0, 10)
// Days are counted in UTC, where each has 24 hours.
const noon = (day: string) => Date.parse(`${day}T12:00:00Z`)

export const dayOf = (now: Date) =>
  iso(Date.UTC(now.getFullYear(), now.getMonth(), now.getDate(), 12))

export const moved = (day: string, by: number) => iso(noon(day) + by * DAY_MS)

/** All days from the first to the last, both included. */
export function daysBetween(first: string, last: string): string[] {
  const days: string[] = []
  for (let at = noon(first); at <= noon(last); at += DAY_MS) days.push(iso(at))
  return days
}

export interface Range {
  first: string
  last: string
}

export const RANGES = [
  { value: '7', label: 'The last 7 days' },
  { value: '30', label: 'The last 30 days' },
  { value: 'month', label: 'This month' },
  { value: 'before', label: 'The month before' },
  { value: '365', label: 'The last 365 days' },
  { value: 'own', label: 'From … to …' },
] as const

export type RangeName = (typeof RANGES)[number]['value']

/** Null for one that is typed. */
export function rangeOf(name: RangeName, now = new Date()): Range | null {
  const today = dayOf(now)
  const first = (months: number) => dayOf(new Date(now.getFullYear(), now.getMonth() + months, 1))
  switch (name) {
    case 'own':
      return null
    case 'month':
      return { first: first(0), last: today }
    case 'before':
      return { first: first(-1), last: moved(first(0), -1) }
    default:
      return { first: moved(today, 1 - Number(name)), last: today }
  }
}

export const DAYS_MAX = 400

/** Why a range cannot be asked for; null where it can. */
export function rangeProblem({ first, last }: Range): string | null {
  if (first === '' || last === '') return 'Give both days.'
  if (first > last) return 'The first day comes after the last one.'
  const days = (noon(last) - noon(first)) / DAY_MS + 1
  return days > DAYS_MAX ? `At most ${DAYS_MAX} days.` : null
}

const short = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', timeZone: 'UTC' })
const long = new Intl.DateTimeFormat('en-GB', {
  weekday: 'short',
  day: 'numeric',
  month: 'short',
  year: 'numeric',
  timeZone: 'UTC',
})

/** "3 Nov". */
export const shortDay = (day: string) => short.format(noon(day))
/** "Tue, 3 Nov 2026". */
export const longDay = (day: string) => long.format(noon(day))
