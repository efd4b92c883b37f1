/**
 * A stand-in for the server: answers by "METHOD /path", keeps what it was sent,
 * and streams chat answers piece by piece under the test's control.
 */
import { vi } from 'vitest'

interface Call {
  method: string
  path: string
  query: URLSearchParams
  body: unknown
  signal: AbortSignal
}

type Reply = (call: Call) => Response | Promise<Response>

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(status === 204 ? null : JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/json', ...headers },
  })
}

export const refusal = (status: number, message: string, headers: Record<string, string> = {}) =>
  json({ error: { message, code: 'refused' } }, status, headers)

export function serve(routes: Record<string, Reply>): Call[] {
  const calls: Call[] = []
  vi.stubGlobal('fetch', async (input: RequestInfo | URL, init?: RequestInit) => {
    const target = typeof input === 'string' ? new URL(input, window.location.origin) : input
    const request = new Request(target, init && { ...init, signal: null })
    const { pathname, searchParams: query } = new URL(request.url)
    const text = await request.text()
    const body: unknown = text === '' ? null : JSON.parse(text)
    const signal = init?.signal ?? new AbortController().signal
    const call: Call = { method: request.method, path: pathname, query, body, signal }
    calls.push(call)
    const reply = routes[`${call.method} ${call.path}`]
    return reply === undefined ? refusal(404, `No route ${call.method} ${call.path}`) : reply(call)
  })
  return calls
}

/** A body the test feeds while the page reads; an abort of the call breaks it as in a browser. */
export class LiveBody {
  readonly #encoder = new TextEncoder()
  #controller: ReadableStreamDefaultController<Uint8Array> | null = null

  response(signal: AbortSignal): Response {
    const stream = new ReadableStream<Uint8Array>({
      start: (controller) => {
        this.#controller = controller
      },
    })
    signal.addEventListener('abort', () => this.#controller?.error(signal.reason))
    return new Response(stream, { headers: { 'content-type': 'text/event-stream' } })
  }

  raw(text: string): void {
    this.#controller?.enqueue(this.#encoder.encode(text))
  }

  data(value: unknown): void {
    this.raw(`data: ${JSON.stringify(value)}\n\n`)
  }

  text(content: string): void {
    this.data({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })
  }

  finish(output = 3): void {
    this.data({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })
    this.data({ choices: [], usage: { prompt_tokens: 5, completion_tokens: output } })
    this.raw('data: [DONE]\n\n')
    this.close()
  }

  close(): void {
    this.#controller?.close()
  }
}
