/** A stand-in for the browser's WebSocket, opened and broken by the test. */
import { vi } from 'vitest'

export class FakeSocket {
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: (() => void) | null = null
  closed = false
  readonly url: string

  constructor(url: URL) {
    this.url = url.href
  }

  close(): void {
    this.closed = true
  }

  says(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) })
  }

  breaks(): void {
    this.onclose?.()
  }
}

/** Puts it in place; gives every socket that is asked for, in order. */
export function sockets(): FakeSocket[] {
  const made: FakeSocket[] = []
  vi.stubGlobal(
    'WebSocket',
    class extends FakeSocket {
      constructor(url: URL) {
        super(url)
        made.push(this)
      }
    },
  )
  return made
}
