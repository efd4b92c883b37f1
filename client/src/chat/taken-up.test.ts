import { beforeEach, expect, test, vi } from 'vitest'
import { message, Shelf, stored } from '../test/conversations'
import { json, refusal, serve } from '../test/server'
import { lastAnswer } from './conversation'
import { ChatStore } from './store'

let shelf: Shelf
let store: ChatStore
let calls: ReturnType<typeof serve>

const STREAM = 'GET /api/conversations/c1/messages/a1/stream'
const STOP = '/api/conversations/c1/messages/a1/stop'
const answer = () => lastAnswer(store.current())
const called = (path: string) => calls.filter((call) => call.path === path).length
const eventually = (check: () => void) => vi.waitFor(check, { timeout: 8000 })
const streaming = { state: 'streaming', content: 'Half' } as const

beforeEach(() => {
  shelf = new Shelf()
  store = new ChatStore()
  calls = serve(shelf.routes)
})

async function asked() {
  store.ask('Why?', 'small')
  await eventually(() => expect(store.current().exchanges[0]?.reply?.id).toBe('a1'))
  shelf.body.text('Half')
  await eventually(() => expect(answer()?.text).toBe('Half'))
}

test('an answer whose connection breaks is taken up from its beginning, and ends as it is stored', async () => {
  await asked()
  const before = shelf.body
  before.close()
  await eventually(() => expect(shelf.body).not.toBe(before))
  shelf.body.text('Half and more')
  await eventually(() => expect(answer()).toMatchObject({ text: 'Half and more', adrift: false }))
  const whole = message('a1', 'q1', { content: 'Whole.', total_ms: 4321 })
  shelf.conversation = stored([message('q1', null), whole])
  shelf.body.finish()
  await eventually(() => expect(answer()).toMatchObject({ state: 'complete', text: 'Whole.' }))
  expect(answer()?.totalMs).toBe(4321)
})

test('one that has ended meanwhile is read', async () => {
  await asked()
  serve({ ...shelf.routes, [STREAM]: () => refusal(409, 'It does not grow any more.') })
  shelf.conversation = stored([message('q1', null), message('a1', 'q1', { state: 'stopped' })])
  shelf.body.close()
  await eventually(() => expect(answer()).toMatchObject({ state: 'stopped', text: 'Text of a1' }))
})

test('as long as the server cannot be reached it says so and keeps the text', async () => {
  await asked()
  serve({
    [STREAM]: () => {
      throw new TypeError('Failed to fetch')
    },
  })
  shelf.body.close()
  await eventually(() => expect(answer()?.adrift).toBe(true))
  expect(answer()).toMatchObject({ state: 'streaming', text: 'Half', problem: null })
  store.dispose()
})

test('leaving it stops nothing, and coming back takes it up', async () => {
  await asked()
  store.clear()
  expect(called(STOP)).toBe(0)
  shelf.conversation = stored([message('q1', null), message('a1', 'q1', streaming)])
  store.open('c1')
  await eventually(() => expect(calls.at(-1)?.path).toMatch(/stream$/))
  shelf.body.text('All of it')
  await eventually(() => expect(answer()?.text).toBe('All of it'))
  store.dispose()
})

test('stop is told to the server, which ends the stream; in another tab it is told by the stream', async () => {
  await asked()
  await store.stop()
  expect(called(STOP)).toBe(1)
  const conversation = { id: 'c1', question_id: 'q1', answer_id: 'a1', state: 'stopped' }
  shelf.body.data({ wirthforge: { conversation } })
  shelf.body.raw('data: [DONE]\n\n')
  shelf.body.close()
  await eventually(() => expect(answer()).toMatchObject({ state: 'stopped', text: 'Half' }))
})

test('stop before the server has named the answer waits for that', async () => {
  let open: (response: Response) => void = () => undefined
  const late = new Promise<Response>((resolve) => {
    open = resolve
  })
  calls = serve({
    ...shelf.routes,
    'POST /api/conversations/c1/messages': async ({ signal }) => {
      const response = shelf.routes['POST /api/conversations/c1/messages']({ signal })
      await late
      return response
    },
  })
  store.ask('Why?', 'small')
  await eventually(() => expect(called('/api/conversations/c1/messages')).toBe(1))
  await store.stop()
  expect(called(STOP)).toBe(0)
  open(json(null))
  await eventually(() => expect(called(STOP)).toBe(1))
  store.dispose()
})

test('a stop that does not reach the server is told, and the answer goes on', async () => {
  await asked()
  serve({})
  await store.stop()
  expect(store.current().problem).not.toBeNull()
  shelf.body.text(' more')
  await eventually(() => expect(answer()?.text).toBe('Half more'))
  store.dispose()
})

test('what was said in another tab is read when the list tells of it, and only then', async () => {
  shelf.conversation = stored([message('q1', null), message('a1', 'q1')])
  store.open('c1')
  await eventually(() => expect(answer()?.state).toBe('complete'))
  const read = called('/api/conversations/c1')
  store.isUpdated(shelf.conversation.updated_at)
  expect(called('/api/conversations/c1')).toBe(read)
  store.isUpdated('2026-11-24T00:00:00Z')
  await eventually(() => expect(called('/api/conversations/c1')).toBe(read + 1))
})
