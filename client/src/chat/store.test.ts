import { beforeEach, describe, expect, test, vi } from 'vitest'
import { LiveBody, serve } from '../test/server'
import { lastAnswer } from './conversation'
import { ChatStore } from './store'

let body: LiveBody

beforeEach(() => {
  serve({
    'POST /v1/chat/completions': ({ signal }) => {
      body = new LiveBody()
      return body.response(signal)
    },
  })
})

const answer = (store: ChatStore) => lastAnswer(store.current())
const settled = () => new Promise((resolve) => setTimeout(resolve, 10))

async function asking(): Promise<ChatStore> {
  const store = new ChatStore()
  store.keep(true)
  store.ask('Hello?', 'm')
  await settled()
  return store
}

describe('a temporary chat', () => {
  test('gathers the tokens between two frames into one update', async () => {
    let frame: FrameRequestCallback | null = null
    vi.spyOn(window, 'requestAnimationFrame').mockImplementation((callback) => {
      frame = callback
      return 1
    })
    const store = await asking()
    body.text('The first token is shown at once.')
    await settled()
    const seen = vi.fn()
    store.subscribe(seen)
    for (const word of [' Then', ' come', ' more.']) body.text(word)
    await settled()
    expect(seen).not.toHaveBeenCalled()
    ;(frame as FrameRequestCallback | null)?.(0)
    expect(seen).toHaveBeenCalledTimes(1)
    expect(answer(store)?.text).toBe('The first token is shown at once. Then come more.')
  })

  test('shows the place in the queue, and then the first token, without waiting for a frame', async () => {
    vi.spyOn(window, 'requestAnimationFrame').mockReturnValue(1)
    const store = await asking()
    body.raw(': queue ahead=1 wait_s=4\n\n')
    await settled()
    expect(answer(store)).toMatchObject({ state: 'waiting', turn: { ahead: 1 } })
    body.text('Hello')
    await settled()
    expect(answer(store)).toMatchObject({ state: 'streaming', text: 'Hello' })
  })

  test('ends complete, with nothing left waiting for a frame', async () => {
    vi.spyOn(window, 'requestAnimationFrame').mockReturnValue(1)
    const store = await asking()
    body.text('Hello')
    body.text(' there')
    body.finish(2)
    await settled()
    expect(answer(store)).toMatchObject({ state: 'complete', text: 'Hello there' })
  })

  test('keeps the text so far when stopped', async () => {
    const store = await asking()
    body.text('Half')
    await settled()
    void store.stop()
    await settled()
    expect(answer(store)).toMatchObject({ state: 'stopped', text: 'Half', problem: null })
  })

  test('takes no second question while one is answered', async () => {
    const store = await asking()
    store.ask('Another?', 'm')
    expect(store.current().exchanges).toHaveLength(1)
  })

  test('lets nothing of the old answer into a new conversation', async () => {
    const store = await asking()
    body.text('Old')
    await settled()
    store.clear()
    await settled()
    expect(store.current().exchanges).toEqual([])
    store.keep(true)
    store.ask('New?', 'm')
    await settled()
    expect(answer(store)).toMatchObject({ state: 'waiting', text: '' })
  })
})
