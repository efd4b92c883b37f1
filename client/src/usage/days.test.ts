import { expect, test } from 'vitest'
import { daysBetween, moved, rangeOf, rangeProblem } from './days'

const now = new Date(2026, 2, 30, 0, 30)

test('ranges end today, or with the month before', () => {
  expect(rangeOf('7', now)).toEqual({ first: '2026-03-24', last: '2026-03-30' })
  expect(rangeOf('month', now)).toEqual({ first: '2026-03-01', last: '2026-03-30' })
  expect(rangeOf('before', now)).toEqual({ first: '2026-02-01', last: '2026-02-28' })
  expect(rangeOf('own', now)).toBeNull()
})

test('no day is missing or there twice when clocks change', () => {
  const days = daysBetween('2026-03-27', '2026-04-02')
  expect(days).toHaveLength(7)
  expect(new Set(days).size).toBe(7)
  expect(moved('2026-03-01', -1)).toBe('2026-02-28')
})

test('a range that cannot be asked for says why', () => {
  expect(rangeProblem({ first: '', last: '2026-01-01' })).toBe('Give both days.')
  expect(rangeProblem({ first: '2026-01-02', last: '2026-01-01' })).toMatch(/after/)
  expect(rangeProblem({ first: '2025-01-01', last: '2026-03-01' })).toBe('At most 400 days.')
  expect(rangeProblem({ first: '2026-01-01', last: '2026-01-01' })).toBeNull()
})
