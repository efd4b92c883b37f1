import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import type { Share } from '../api/client'
import { json, refusal, serve } from '../test/server'
import { type FakeSocket, sockets } from '../test/socket'
import { ShareFeed } from './feed'

const share = (people: number, waitMs: number | null = null): Share => ({
  engines: [{ name: 'e', slots: 2, running: 2, waiting: 1 }],
  people,
  weight: 100,
  share_percent: 50,
  requests: [
    {
      id: 'r',
      model: 'm',
      engine: 'e',
      state: 'queued',
      ahead: 1,
      wait_ms: waitMs,
      output_tokens: 0,
    },
  ],
  budgets: [],
})

let made: FakeSocket[]
let polls: unknown[]
let answer: () => Response
let feed: ShareFeed

beforeEach(() => {
  vi.useFakeTimers()
  made = sockets()
  answer = () => json(share(9))
  polls = serve({ 'GET /api/share': () => answer() })
  feed = new ShareFeed()
})

afterEach(() => {
  feed.stop()
  vi.useRealTimers()
  hide(false)
})

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms)
const people = () => feed.current().data?.people

function hide(hidden: boolean): void {
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
  document.dispatchEvent(new Event('visibilitychange'))
}

describe('the share', () => {
  test('comes over the socket, and nobody is asked besides', async () => {
    feed.start()
    expect(made[0]?.url).toBe('ws://localhost:3000/api/live')
    made[0]?.says(share(2))
    expect(feed.current()).toMatchObject({ data: { people: 2 }, live: true, problem: null })
    made[0]?.says(share(3))
    await pass(60_000)
    expect(people()).toBe(3)
    expect(polls).toHaveLength(0)
  })

  test('is asked for every five seconds where no socket can be had', async () => {
    feed.start()
    made[0]?.breaks()
    await pass(0)
    expect(feed.current()).toMatchObject({ data: { people: 9 }, live: false })
    await pass(10_000)
    expect(polls).toHaveLength(3)
  })

  test('is asked for when a socket stays silent, until it speaks', async () => {
    feed.start()
    await pass(3000)
    expect(people()).toBe(9)
    made[0]?.says(share(2))
    await pass(60_000)
    expect(people()).toBe(2)
    expect(polls).toHaveLength(1)
  })

  test('tries the socket again, after longer and longer pauses', async () => {
    feed.start()
    const pauses: number[] = []
    for (let round = 0; round < 7; round++) {
      const before = made.length
      made.at(-1)?.breaks()
      let waited = 0
      while (made.length === before) {
        await pass(500)
        waited += 500
      }
      pauses.push(waited)
    }
    expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000])
    made.at(-1)?.says(share(2))
    made.at(-1)?.breaks()
    const before = made.length
    await pass(1000)
    expect(made.length).toBe(before + 1)
  })

  test('is not followed while the page is hidden', async () => {
    feed.start()
    made[0]?.breaks()
    await pass(0)
    hide(true)
    await pass(60_000)
    expect(polls).toHaveLength(1)
    expect(made).toHaveLength(1)
    hide(false)
    expect(made).toHaveLength(2)
    hide(true)
    expect(made[1]?.closed).toBe(true)
  })

  test('keeps what it knew when the server is away, and says so', async () => {
    feed.start()
    made[0]?.says(share(2))
    answer = () => refusal(503, 'The server cannot reach its queue (Redis).')
    made[0]?.breaks()
    await pass(0)
    expect(feed.current()).toMatchObject({
      data: { people: 2 },
      live: false,
      problem: { message: 'The server cannot reach its queue (Redis).' },
    })
  })

  test('counts one estimate down instead of following each that sways', () => {
    feed.start()
    made[0]?.says(share(2, 20_000))
    const first = feed.current().turns.get('r')
    made[0]?.says(share(2, 21_000))
    expect(feed.current().turns.get('r')?.dueAt).toBe(first?.dueAt)
  })

  test('takes nothing from a message that is no share', () => {
    feed.start()
    made[0]?.onmessage?.({ data: 'hello' })
    made[0]?.says([1])
    expect(people()).toBeUndefined()
  })
})
