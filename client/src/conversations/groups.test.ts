import { expect, test } from 'vitest'
import { row } from '../test/conversations'
import { groupsOf, piecesOf, titleOf } from './groups'

test('conversations stand under the day on which they were spoken in last', () => {
  const now = new Date(2026, 10, 23, 9)
  const at = (days: number, hour: number) => new Date(2026, 10, 23 - days, hour, 30).toISOString()
  const rows = [
    row('a', { pinned: true, updated_at: at(90, 8) }),
    row('b', { updated_at: at(0, 0) }),
    row('c', { updated_at: at(1, 23) }),
    row('d', { updated_at: at(6, 12) }),
    row('e', { updated_at: at(7, 12) }),
    row('f', { updated_at: at(300, 12) }),
  ]
  const groups = groupsOf(rows, now).map(({ title, rows }) => [title, rows.map(({ id }) => id)])
  expect(groups).toEqual([
    ['Pinned', ['a']],
    ['Today', ['b']],
    ['Yesterday', ['c']],
    ['Last seven days', ['d']],
    ['Earlier', ['e', 'f']],
  ])
})

test('a clock that is behind the server puts nothing into tomorrow', () => {
  const tomorrow = new Date(2026, 10, 24, 1).toISOString()
  const [group] = groupsOf([row('a', { updated_at: tomorrow })], new Date(2026, 10, 23, 23))
  expect(group?.title).toBe('Today')
})

test('found words are told from the rest, and marks without a partner are text', () => {
  expect(piecesOf('a «council» of «two»')).toEqual([
    { text: 'a ', isFound: false },
    { text: 'council', isFound: true },
    { text: ' of ', isFound: false },
    { text: 'two', isFound: true },
  ])
  expect(piecesOf('one « only')).toEqual([{ text: 'one « only', isFound: false }])
})

test('a conversation without a title has a name', () => {
  expect(titleOf({ title: '' })).toBe('New chat')
})
