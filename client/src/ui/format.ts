const whole = new Intl.NumberFormat('en')
const oneDecimal = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const cents = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 })
const small = new Intl.NumberFormat('en', { maximumSignificantDigits: 2, minimumFractionDigits: 2 })
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })
const minute = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
})

export const count = (n: number) => whole.format(n)

/** "1 token", "2 tokens". */
export const counted = (n: number, noun: string) => `${count(n)} ${noun}${n === 1 ? '' : 's'}`

/** Keeps a number and its unit on one line. */
const NBSP = '\u00a0'

/** Milliseconds in the unit one would say: "240 ms", "3.2 s", "2 min 5 s". */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}${NBSP}ms`
  const seconds = ms / 1000
  if (seconds < 59.95) return `${seconds.toFixed(1)}${NBSP}s`
  const rounded = Math.round(seconds)
  return `${Math.floor(rounded / 60)}${NBSP}min ${rounded % 60}${NBSP}s`
}

const HOUR_MS = 3_600_000

/** The same where it may be days: from an hour on "5.3 h". */
export const longTime = (ms: number) =>
  ms < HOUR_MS ? duration(ms) : `${oneDecimal.format(ms / HOUR_MS)}${NBSP}h`

const WH_MJ = 3_600_000

/** Millijoules as one would say it: "540 J", "12.4 Wh", "1.3 kWh". */
export function energy(mj: number): string {
  if (mj < WH_MJ) return `${oneDecimal.format(mj / 1000)}${NBSP}J`
  const wh = mj / WH_MJ
  return wh < 1000
    ? `${oneDecimal.format(wh)}${NBSP}Wh`
    : `${oneDecimal.format(wh / 1000)}${NBSP}kWh`
}

/** A decimal amount of money, in the currency that an admin means: "12.40", "0.0031". */
export function money(amount: string | number): string {
  const number = Number(amount)
  return Math.abs(number) >= 0.1 || number === 0 ? cents.format(number) : small.format(number)
}

const SIZES = ['B', 'KiB', 'MiB', 'GiB', 'TiB']

/** Bytes in binary units: "512 MiB", "23.6 GiB". */
export function binary(bytes: number): string {
  const power = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), SIZES.length - 1)
  const size = bytes / 1024 ** power
  return `${power < 3 ? Math.round(size) : size.toFixed(1)}${NBSP}${SIZES[power]}`
}

const STEPS = [
  { unit: 'd', ms: 86_400_000 },
  { unit: 'h', ms: 3_600_000 },
  { unit: 'min', ms: 60_000 },
]

/** A time to come in one unit, rounded up: "14 s", "2 min", "5 h", "12 d". Never less than a second. */
export function span(ms: number): string {
  const step = STEPS.find(({ ms: whole }) => ms > whole * 1.5)
  const { unit, ms: whole } = step ?? { unit: 's', ms: 1000 }
  return `${Math.max(1, Math.ceil(ms / whole))}${NBSP}${unit}`
}

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' })
const PAST = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
] as const

/** "just now", "2 minutes ago", "yesterday". */
export function ago(iso: string, now = Date.now()): string {
  const ms = now - Date.parse(iso)
  const [unit, whole] = PAST.find(([, whole]) => ms >= whole) ?? []
  return unit === undefined ? 'just now' : relative.format(-Math.floor(ms / whole), unit)
}

export const date = (iso: string) => day.format(new Date(iso))
export const dateTime = (iso: string) => minute.format(new Date(iso))
