/**
 * Everything that can go wrong between the page and the server ends up as one
 * `Problem`: a sentence to show as it is, and what the page may do about it.
 * The app's own API and the OpenAI-compatible one shape their errors alike
 * (`{"error": {"message"}}`), so one reader serves both.
 */
export class Problem extends Error {
  /** The HTTP status; null when no answer came or the stream broke. */
  readonly status: number | null
  /** Seconds the server asks to wait before the next try. */
  readonly retryAfter: number | null
  /** The field of the request that is wrong, where it is one. */
  readonly param: string | null

  constructor(
    message: string,
    status: number | null = null,
    retryAfter: number | null = null,
    param: string | null = null,
  ) {
    super(message)
    this.name = 'Problem'
    this.status = status
    this.retryAfter = retryAfter
    this.param = param
  }
}

export const UNREACHABLE = 'The server cannot be reached. Check that the box is on and try again.'

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The sentence inside an error body, or null when the body has another shape. */
export const messageOf = (body: unknown) => wordOf(body, 'message')

function wordOf(body: unknown, name: 'message' | 'param'): string | null {
  const error = isRecord(body) ? body.error : null
  const word = isRecord(error) ? error[name] : null
  return typeof word === 'string' && word !== '' ? word : null
}

/** Retry-After is either a number of seconds or a date. */
export function secondsOf(header: string | null, now = Date.now()): number | null {
  if (header === null) return null
  const seconds = /^\d+$/.test(header.trim())
    ? Number(header)
    : Math.ceil((Date.parse(header) - now) / 1000)
  return Number.isFinite(seconds) && seconds > 0 ? seconds : null
}

export function problemOf(response: Response, body: unknown): Problem {
  const message = messageOf(body) ?? `The server answered with status ${response.status}.`
  const retryAfter = secondsOf(response.headers.get('retry-after'))
  return new Problem(message, response.status, retryAfter, wordOf(body, 'param'))
}

/** What `fetch` throws says little to a reader; an abort keeps its own kind. */
export function asProblem(reason: unknown): Problem {
  return reason instanceof Problem ? reason : new Problem(UNREACHABLE)
}
