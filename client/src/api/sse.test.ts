import { describe, expect, test } from 'vitest'
import { readEvents, SseDecoder } from './sse'

const SAMPLE = [
  ': a comment to keep the line open\n\n',
  'data: {"text":"Grüße, 鍛冶 🔨"}\r\n\r\n',
  'event: ignored\rid: 7\rdata:first line\rdata:  second line\r\r',
  'data\n\n',
  'data: [DONE]\n\n',
].join('')
const EVENTS = ['{"text":"Grüße, 鍛冶 🔨"}', 'first line\n second line', '', '[DONE]']
const BYTES = new TextEncoder().encode(SAMPLE)

function decode(...chunks: Uint8Array[]): string[] {
  const decoder = new SseDecoder()
  return chunks.flatMap((chunk) => decoder.push(chunk))
}

describe('SseDecoder', () => {
  test('reads comments, all three line ends, several data lines and other fields', () => {
    expect(decode(BYTES)).toEqual(EVENTS)
  })

  test('gives the same events wherever the stream is cut in two', () => {
    for (let cut = 0; cut <= BYTES.length; cut++) {
      expect(decode(BYTES.slice(0, cut), BYTES.slice(cut)), `cut at ${cut}`).toEqual(EVENTS)
    }
  })

  test('gives the same events wherever the stream is cut in three', () => {
    for (let first = 0; first <= BYTES.length; first++) {
      for (let second = first; second <= BYTES.length; second++) {
        const parts = [BYTES.slice(0, first), BYTES.slice(first, second), BYTES.slice(second)]
        expect(decode(...parts)).toEqual(EVENTS)
      }
    }
  })

  test('gives the same events when every byte comes alone', () => {
    expect(decode(...[...BYTES].map((byte) => Uint8Array.of(byte)))).toEqual(EVENTS)
  })

  test('keeps back an event whose blank line has not come', () => {
    expect(decode(new TextEncoder().encode('data: one\n\ndata: half\n'))).toEqual(['one'])
  })
})

describe('readEvents', () => {
  test('cancels the body when its reader leaves early', async () => {
    let cancelled = false
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(BYTES),
      cancel: () => {
        cancelled = true
      },
    })
    for await (const event of readEvents(body)) {
      expect(event).toBe(EVENTS[0])
      break
    }
    expect(cancelled).toBe(true)
  })
})
