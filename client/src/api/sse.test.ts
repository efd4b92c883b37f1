import { describe, expect, test } from 'vitest'
import { readEvents, SseDecoder, type SsePart } from './sse'

const SAMPLE = [
  ': a comment to keep the line open\n\n',
  'data: {"text":"Grüße, 鍛冶 🔨"}\r\n\r\n',
  'event: ignored\rid: 7\rdata:first line\rdata:  second line\r\r',
  'data\n\n',
  'data: [DONE]\n\n',
].join('')
const event = (text: string): SsePart => ({ kind: 'event', text })
const COMMENT: SsePart = { kind: 'comment', text: 'a comment to keep the line open' }
const PARTS = [
  COMMENT,
  event('{"text":"Grüße, 鍛冶 🔨"}'),
  event('first line\n second line'),
  event(''),
  event('[DONE]'),
]
const BYTES = new TextEncoder().encode(SAMPLE)

function decode(...chunks: Uint8Array[]): SsePart[] {
  const decoder = new SseDecoder()
  return chunks.flatMap((chunk) => decoder.push(chunk))
}

describe('SseDecoder', () => {
  test('reads comments, all three line ends, several data lines and other fields', () => {
    expect(decode(BYTES)).toEqual(PARTS)
  })

  test('gives the same events wherever the stream is cut in two', () => {
    for (let cut = 0; cut <= BYTES.length; cut++) {
      expect(decode(BYTES.slice(0, cut), BYTES.slice(cut)), `cut at ${cut}`).toEqual(PARTS)
    }
  })

  test('gives the same events wherever the stream is cut in three', () => {
    for (let first = 0; first <= BYTES.length; first++) {
      for (let second = first; second <= BYTES.length; second++) {
        const parts = [BYTES.slice(0, first), BYTES.slice(first, second), BYTES.slice(second)]
        expect(decode(...parts)).toEqual(PARTS)
      }
    }
  })

  test('gives the same events when every byte comes alone', () => {
    expect(decode(...[...BYTES].map((byte) => Uint8Array.of(byte)))).toEqual(PARTS)
  })

  test('keeps back an event whose blank line has not come', () => {
    expect(decode(new TextEncoder().encode('data: one\n\ndata: half\n'))).toEqual([event('one')])
  })
})

describe('comments', () => {
  test('come at once, also amid an event, which they do not end', () => {
    const parts = decode(new TextEncoder().encode('data: a\n: queue ahead=2\n:x\ndata: b\n\n'))
    expect(parts.map(({ text }) => text)).toEqual(['queue ahead=2', 'x', 'a\nb'])
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
    for await (const part of readEvents(body)) {
      expect(part).toEqual(COMMENT)
      break
    }
    expect(cancelled).toBe(true)
  })
})
