import { beforeEach, expect, test } from 'vitest'
import { row } from '../test/conversations'
import { json, refusal, serve } from '../test/server'
import { ConversationList } from './list'
import type { ConversationPage } from './wire'

let pages: Record<string, ConversationPage | undefined>
let list: ConversationList

const day = (id: string, number: number) =>
  row(id, { updated_at: `2026-11-${String(number).padStart(2, '0')}T12:00:00Z` })
const ids = () => list.current().rows?.map(({ id }) => id)

beforeEach(() => {
  list = new ConversationList()
  pages = {
    first: { conversations: [day('d', 20), day('c', 19)], next: 'second' },
    second: { conversations: [day('b', 12), day('a', 11)], next: null },
  }
  serve({
    'GET /api/conversations': ({ query }) => {
      const page = pages[query.get('search') ?? query.get('before') ?? 'first']
      return page === undefined ? refusal(503, 'The database is away.') : json(page)
    },
  })
})

test('grows page by page to its end', async () => {
  await list.refresh()
  expect(ids()).toEqual(['d', 'c'])
  await list.more()
  expect(ids()).toEqual(['d', 'c', 'b', 'a'])
  expect(list.current().next).toBeNull()
})

test('a fresh first page keeps the later ones, without what was deleted or has moved up', async () => {
  await list.refresh()
  await list.more()
  pages.first = { conversations: [day('a', 23), day('d', 20)], next: 'second' }
  await list.refresh()
  expect(ids()).toEqual(['a', 'd', 'c', 'b'])
  pages.first = { conversations: [day('d', 20)], next: null }
  await list.refresh()
  expect(ids()).toEqual(['d'])
})

test('shows of two searches what the later one found, whichever comes last', async () => {
  let answerFirst: (response: Response) => void = () => undefined
  serve({
    'GET /api/conversations': ({ query }) =>
      query.get('search') === 'one'
        ? new Promise<Response>((resolve) => {
            answerFirst = resolve
          })
        : json({ conversations: [day('two', 2)], next: null }),
  })
  const first = list.search('one')
  await list.search('two')
  answerFirst(json({ conversations: [day('one', 1)], next: null }))
  await first
  expect(ids()).toEqual(['two'])
})

test('a list that cannot be read says why and keeps what it has', async () => {
  await list.refresh()
  pages = {}
  await list.refresh()
  expect(list.current().problem?.message).toBe('The database is away.')
  expect(ids()).toEqual(['d', 'c'])
})
