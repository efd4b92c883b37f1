import { expect, test } from 'vitest'
import { standing } from '../test/cloud'
import { asksOf, markOf } from './wire'
import { budgetSentence, foundWords, standingSentence } from './words'

test('one sentence says what holds', () => {
  expect(standingSentence(standing({ is_on: false }))).toMatch(/switched off/)
  expect(standingSentence(standing({ in_force: [] }))).toMatch(/no provider/)
  expect(standingSentence(standing())).toMatch(/before you have seen it and said yes/)
  const [target] = standing().in_force
  if (target === undefined) throw new Error('there is one')
  const two = standing({ in_force: [target, { ...target, mode: 'never' }] })
  expect(standingSentence(two)).toMatch(/depends on the provider/)
  const poor = { limit_micros: 0, spent_micros: 0, reserved_micros: 0 }
  expect(standingSentence(standing({ budget: poor }))).toMatch(/no budget/)
})

test('a budget is told with what is held', () => {
  const budget = { limit_micros: 5_000_000, spent_micros: 1_250_000, reserved_micros: 0 }
  expect(budgetSentence(budget)).toBe('1.25 of 5.00 this month.')
  expect(budgetSentence({ ...budget, reserved_micros: 300_000, limit_micros: null })).toBe(
    '1.25 this month, and 0.30 are held for what runs. There is no limit.',
  )
})

test('findings are counted in words, also those that have none here', () => {
  expect(foundWords({ EMAIL: 2, PERSON: 1, CODE: 3, NEW_THING: 1 })).toBe(
    '2 e-mail addresses, 1 name, 3 pieces of code, 1 new thing',
  )
})

test('what a stream tells is read defensively', () => {
  expect(asksOf({ token: 't', provider: 'p' })).toMatchObject({ token: 't', model: '' })
  expect(asksOf({ provider: 'p' })).toBeNull()
  expect(
    markOf({ provider: 'p', model: 'm', form: 'pseudonymised', unrestored: ['x', 1] }),
  ).toEqual({ provider: 'p', model: 'm', form: 'pseudonymised', unrestored: ['x'] })
  expect(markOf({ unrestored: ['y'] }, markOf({ provider: 'p' }))).toMatchObject({
    provider: 'p',
    unrestored: ['y'],
  })
  expect(markOf({ unrestored: ['y'] })).toBeNull()
  expect(markOf(null)).toBeNull()
})
