import { expect, test } from 'vitest'
import { totalsOf } from '../usage/totals'
import { counted, duration } from './format'

test('durations use the unit one would say', () => {
  const plain = (ms: number) => duration(ms).replaceAll('\u00a0', ' ')
  expect([0, 999, 3240, 59_940, 59_960, 125_000].map(plain)).toEqual([
    '0 ms',
    '999 ms',
    '3.2 s',
    '59.9 s',
    '1 min 0 s',
    '2 min 5 s',
  ])
})

test('counts come with a noun in the right number', () => {
  expect([counted(1, 'token'), counted(2048, 'token')]).toEqual(['1 token', '2,048 tokens'])
})

test('totals add up the rows shown', () => {
  const row = {
    request_id: 'r',
    model: 'm',
    engine: 'e',
    queue_ms: 0,
    first_token_ms: null,
    total_ms: 1,
    outcome: 'completed' as const,
    started_at: '2030-01-01T00:00:00Z',
  }
  const rows = [
    { ...row, input_tokens: 1, output_tokens: 10 },
    { ...row, input_tokens: 2, output_tokens: 20 },
  ]
  expect(totalsOf(rows)).toEqual({ requests: 2, input: 3, output: 30 })
})
