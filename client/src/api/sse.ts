/**
 * Server-sent events, read from bytes as they arrive.
 *
 * A chunk can end anywhere: inside a character, between CR and LF, inside a
 * field name. So the decoder keeps three things between chunks: the undecoded
 * tail of a character (inside TextDecoder), the unfinished line, and whether
 * the last line ended in a CR whose LF may still come. Only `data` fields
 * matter to this client; comments and other fields are dropped. An event
 * without its closing blank line is unfinished and is never handed out.
 */
export class SseDecoder {
  readonly #text = new TextDecoder()
  #line = ''
  #afterCr = false
  #data: string[] = []

  /** The data of each event that this chunk completes. */
  push(chunk: Uint8Array): string[] {
    const events: string[] = []
    let rest = this.#text.decode(chunk, { stream: true })
    if (rest === '') return events
    if (this.#afterCr && rest.startsWith('\n')) rest = rest.slice(1)
    this.#afterCr = rest === '' ? false : rest.endsWith('\r')

    const lines = rest.split(/\r\n|\r|\n/)
    const unfinished = lines.pop() ?? ''
    for (const line of lines) {
      this.#endLine(this.#line + line, events)
      this.#line = ''
    }
    this.#line += unfinished
    return events
  }

  #endLine(line: string, events: string[]): void {
    if (line === '') {
      if (this.#data.length > 0) events.push(this.#data.join('\n'))
      this.#data = []
      return
    }
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    if (field !== 'data') return
    const text = colon === -1 ? '' : line.slice(colon + 1)
    this.#data.push(text.startsWith(' ') ? text.slice(1) : text)
  }
}

/** The events of a response body; leaving the loop early cancels the body. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new SseDecoder()
  const reader = body.getReader()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield* decoder.push(value)
    }
  } finally {
    await reader.cancel().catch(() => undefined)
  }
}
