import { describe, expect, test } from 'vitest'
import { json, LiveBody, serve } from '../test/server'
import { type ChatEvent, streamChat } from './chat'
import { Problem } from './errors'

const ROUTE = 'POST /v1/chat/completions'

async function collect(signal = new AbortController().signal) {
  const events: ChatEvent[] = []
  const messages = [{ role: 'user' as const, content: 'Hello' }]
  try {
    for await (const event of streamChat({ model: 'm', messages, signal })) events.push(event)
    return { events, problem: null }
  } catch (reason) {
    return { events, problem: reason }
  }
}

function answering(feed: (body: LiveBody) => void) {
  return serve({
    [ROUTE]: ({ signal }) => {
      const body = new LiveBody()
      const response = body.response(signal)
      feed(body)
      return response
    },
  })
}

describe('streamChat', () => {
  test('asks for a stream with usage and yields text, thinking, finish and usage', async () => {
    const calls = answering((body) => {
      body.raw(': waiting\n\n')
      body.data({ choices: [{ delta: { role: 'assistant', content: '' } }] })
      body.data({ choices: [{ delta: { reasoning_content: 'hm' } }] })
      body.text('Hi')
      body.finish(2)
    })
    const { events, problem } = await collect()
    expect(problem).toBeNull()
    expect(calls[0]?.body).toEqual({
      model: 'm',
      messages: [{ role: 'user', content: 'Hello' }],
      stream: true,
      stream_options: { include_usage: true },
      wirthforge: { cloud: 'private' },
    })
    expect(events).toEqual([
      { type: 'delta', text: '', thinking: 'hm' },
      { type: 'delta', text: 'Hi', thinking: '' },
      { type: 'finish', reason: 'stop' },
      { type: 'usage', input: 5, output: 2 },
    ])
  })

  test('tells the place in the queue, with a time once one is known', async () => {
    answering((body) => {
      body.raw(': queue ahead=2\n\n: queue ahead=1 wait_s=14\n\n')
      body.raw(
        ': keep-alive\n\n: queue of cars\n\n: queue ahead=none\n\n: queue wait_s=3 ahead=0\n\n',
      )
      body.text('Hi')
      body.finish()
    })
    const { events } = await collect()
    expect(events.slice(0, 4)).toEqual([
      { type: 'queue', ahead: 2, waitSeconds: null },
      { type: 'queue', ahead: 1, waitSeconds: 14 },
      { type: 'queue', ahead: 0, waitSeconds: 3 },
      { type: 'delta', text: 'Hi', thinking: '' },
    ])
  })

  test('hands on what a council tells as it is, before the text of the same chunk', async () => {
    answering((body) => {
      const told = { type: 'text', label: 'A', text: 'Hi' }
      body.data({
        choices: [{ delta: { reasoning_content: 'Hi' } }],
        wirthforge: { council: told },
      })
      body.data({ choices: [], wirthforge: { council: 'junk' } })
      body.data({ choices: [], wirthforge: null })
      body.text('Hello')
      body.finish()
    })
    const { events } = await collect()
    expect(events.slice(0, 3)).toEqual([
      { type: 'council', told: { type: 'text', label: 'A', text: 'Hi' } },
      { type: 'delta', text: '', thinking: 'Hi' },
      { type: 'delta', text: 'Hello', thinking: '' },
    ])
  })

  test('tells why an answer pauses, and how often and how long when it goes on', async () => {
    answering((body) => {
      body.text('Half')
      body.raw(': paused another member is being served\n\n: paused\n\n')
      body.raw(': resumed pauses=1 paused_ms=1840\n\n: resumed pauses=one paused_ms=2\n\n')
      body.raw(': resumed\n\n: pausedness\n\n')
      body.text(' done')
      body.finish()
    })
    const { events, problem } = await collect()
    expect(problem).toBeNull()
    expect(events.slice(0, 5)).toEqual([
      { type: 'delta', text: 'Half', thinking: '' },
      { type: 'paused', why: 'another member is being served' },
      { type: 'paused', why: '' },
      { type: 'resumed', pauses: 1, pausedMs: 1840 },
      { type: 'delta', text: ' done', thinking: '' },
    ])
  })

  test('throws what the server says while a request waits', async () => {
    answering((body) => {
      body.raw(': queue ahead=2\n\n')
      const message = 'No slot became free in time. Try again later.'
      body.data({ error: { message, type: 'server_error', param: null, code: 'queue_timeout' } })
      body.close()
    })
    const { events, problem } = await collect()
    expect(events).toHaveLength(1)
    expect(problem).toEqual(new Problem('No slot became free in time. Try again later.'))
  })

  test('keeps the text before an error event and throws its message', async () => {
    answering((body) => {
      body.text('Half')
      body.data({ error: { message: 'The engine ran out of memory.' } })
      body.close()
    })
    const { events, problem } = await collect()
    expect(events).toHaveLength(1)
    expect(problem).toEqual(new Problem('The engine ran out of memory.'))
  })

  test('does not take a connection that ends early for a whole answer', async () => {
    answering((body) => {
      body.text('Half')
      body.close()
    })
    expect((await collect()).problem).toMatchObject({ message: /ended before/ })
  })

  test('tells the message, the status and the waiting time of a refusal', async () => {
    const error = { message: 'The queue is full.', type: 'x', param: null, code: 'x' }
    serve({ [ROUTE]: () => json({ error }, 429, { 'retry-after': '7' }) })
    const { problem } = await collect()
    expect(problem).toEqual(new Problem('The queue is full.', 429, 7))
  })

  test('says something useful when a refusal is not JSON', async () => {
    serve({ [ROUTE]: () => new Response('<h1>Bad gateway</h1>', { status: 502 }) })
    expect((await collect()).problem).toEqual(
      new Problem('The server answered with status 502.', 502),
    )
  })

  test('throws the abort itself and not a problem when it is stopped', async () => {
    const controller = new AbortController()
    answering((body) => body.text('Half'))
    const running = collect(controller.signal)
    setTimeout(() => controller.abort(), 5)
    const { problem } = await running
    expect(problem).not.toBeInstanceOf(Problem)
  })
})
