/**
 * Server-sent events, read from bytes as they arrive.
 *
 * A chunk can end anywhere: inside a character, between CR and LF, inside a
 * field name. So the decoder keeps three things between chunks: the undecoded
 * tail of a character (inside TextDecoder), the unfinished line, and whether
 * the last line ended in a CR whose LF may still come. `data` fields matter to
 * this client, and comments, in which the server tells how a queue moves; other
 * fields are dropped. A comment is handed out with its line. An event without
 * its closing blank line is unfinished and is never handed out.
 */
export interface SsePart {
  kind: 'event' | 'comment'
  text: string
}

export class SseDecoder {
  readonly #text = new TextDecoder()
  #line = ''
  #afterCr = false
  #data: string[] = []

  /** The events (their data) and the comments that this chunk completes. */
  push(chunk: Uint8Array): SsePart[] {
    const parts: SsePart[] = []
    let rest = this.#text.decode(chunk, { stream: true })
    if (rest === '') return parts
    if (this.#afterCr && rest.startsWith('\n')) rest = rest.slice(1)
    this.#afterCr = rest === '' ? false : rest.endsWith('\r')

    const lines = rest.split(/\r\n|\r|\n/)
    const unfinished = lines.pop() ?? ''
    for (const line of lines) {
      this.#endLine(this.#line + line, parts)
      this.#line = ''
    }
    this.#line += unfinished
    return parts
  }

  #endLine(line: string, parts: SsePart[]): void {
    if (line === '') {
      if (this.#data.length > 0) parts.push({ kind: 'event', text: this.#data.join('\n') })
      this.#data = []
      return
    }
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const after = colon === -1 ? '' : line.slice(colon + 1)
    const text = after.startsWith(' ') ? after.slice(1) : after
    if (field === '') parts.push({ kind: 'comment', text })
    else if (field === 'data') this.#data.push(text)
  }
}

/** What a response body says; leaving the loop early cancels the body. */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<SsePart> {
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
