import { describe, expect, test } from 'vitest'
import { told, turnWords } from './turn'

const words = (...turn: Parameters<typeof turnWords>) =>
  turnWords(...turn).replaceAll('\u00a0', ' ')

describe('a turn in the queue', () => {
  test('is told as a place and a time, as far as they are known', () => {
    expect(words(told(null, 2, 14_000, 0), 0)).toBe('2 ahead of you, about 14 s')
    expect(words(told(null, 0, 3000, 0), 0)).toBe('You are next, about 3 s')
    expect(words(told(null, 2, null, 0), 0)).toBe('2 ahead of you')
    expect(words(told(null, null, null, 0), 0)).toBe('Waiting')
  })

  test('is counted down between two messages and never below a second', () => {
    const turn = told(null, 1, 5000, 1000)
    const seen = [1000, 2000, 5500, 6000, 60_000].map((now) => words(turn, now))
    expect(seen.map((text) => text.replace('1 ahead of you, about ', ''))).toEqual([
      '5 s',
      '4 s',
      '1 s',
      '1 s',
      '1 s',
    ])
  })

  test('does not follow an estimate that only sways', () => {
    const first = told(null, 3, 20_000, 0)
    const swayed = told(first, 3, 22_000, 1000)
    expect(swayed).toEqual({ ahead: 3, dueAt: 20_000, toldAt: 1000 })
    expect(told(swayed, 3, 40_000, 2000).dueAt).toBe(42_000)
  })

  test('takes a new estimate when the place changes, or when there was none', () => {
    const first = told(null, 3, 20_000, 0)
    expect(told(first, 2, 18_500, 1000).dueAt).toBe(19_500)
    expect(told(told(null, 3, null, 0), 3, 9000, 1000).dueAt).toBe(10_000)
    expect(told(first, 3, null, 1000).dueAt).toBeNull()
  })
})
