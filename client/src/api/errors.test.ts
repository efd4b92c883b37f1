import { describe, expect, test } from 'vitest'
import { messageOf, secondsOf } from './errors'
import { modelsOf } from './models'

describe('secondsOf', () => {
  test('reads seconds and dates, and nothing else', () => {
    const now = Date.parse('2030-01-01T00:00:00Z')
    expect(secondsOf('12', now)).toBe(12)
    expect(secondsOf('Tue, 01 Jan 2030 00:00:30 GMT', now)).toBe(30)
    expect(secondsOf('0', now)).toBeNull()
    expect(secondsOf('soon', now)).toBeNull()
    expect(secondsOf(null, now)).toBeNull()
  })
})

describe('messageOf', () => {
  test('finds the sentence, or null in a body of another shape', () => {
    expect(messageOf({ error: { message: 'No.' } })).toBe('No.')
    expect(messageOf({ error: 'No.' })).toBeNull()
    expect(messageOf(null)).toBeNull()
  })
})

describe('modelsOf', () => {
  test('reads the list with and without the extra field and skips what is no model', () => {
    const body = {
      data: [{ id: 'a' }, { id: 'b', wirthforge: { demonstration: true } }, { name: 'c' }, null],
    }
    expect(modelsOf(body)).toEqual([
      { id: 'a', demonstration: false, council: false },
      { id: 'b', demonstration: true, council: false },
    ])
    expect(modelsOf('nonsense')).toEqual([])
  })
})
