import { expect, test } from 'vitest'
import { blocksOf, piecesOf } from './body'

test('messages are read as they are, and nothing is left out', () => {
  const body = JSON.stringify({
    model: 'big-1',
    system: 'Be kind.',
    messages: [
      { role: 'user', content: 'Hello\nthere' },
      { role: 'user', content: 'again', name: 'ann' },
      'odd',
    ],
    max_tokens: 5,
  })
  expect(blocksOf(body)).toEqual([
    { title: 'system', text: 'Be kind.' },
    { title: 'user', text: 'Hello\nthere' },
    { title: 'user', text: '{\n  "content": "again",\n  "name": "ann"\n}' },
    { title: 'message', text: '"odd"' },
    { title: 'and beside them', text: '{\n  "model": "big-1",\n  "max_tokens": 5\n}' },
  ])
  expect(blocksOf('no json')).toEqual([{ title: 'Body', text: 'no json' }])
})

test('what was found stands apart, the longest first, and signs mean themselves', () => {
  const pieces = piecesOf('ann@example.org and ann (a+b)', ['ann', 'ann@example.org', '(a+b)', ''])
  expect(pieces.filter(({ isFound }) => isFound).map(({ text }) => text)).toEqual([
    'ann@example.org',
    'ann',
    '(a+b)',
  ])
  expect(pieces.map(({ text }) => text).join('')).toBe('ann@example.org and ann (a+b)')
  expect(piecesOf('plain', [])).toEqual([{ text: 'plain', isFound: false }])
})
