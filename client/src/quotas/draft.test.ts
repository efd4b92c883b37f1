import { describe, expect, test } from 'vitest'
import type { QuotaRule } from '../api/client'
import { draftOf, mistakesOf, numberOf, ruleOf } from './draft'

describe('a rule that is edited', () => {
  test('tells a limit that is inherited, a number and unlimited apart, and back', () => {
    const rule: QuotaRule = {
      weight: 200,
      tokens_per_day: null,
      in_flight_max: 8,
      models: [],
      council_steps: ['queue'],
      cloud_cents_per_month: 0,
    }
    const draft = draftOf(rule)
    expect(draft.tokens_per_month.choice).toBe('inherit')
    expect(draft.tokens_per_day.choice).toBe('unlimited')
    expect(draft.in_flight_max).toMatchObject({ choice: 'value', text: '8' })
    expect(ruleOf(draft)).toEqual(rule)
    expect(Object.keys(ruleOf(draft))).not.toContain('tokens_per_month')
    expect(ruleOf(draftOf({}))).toEqual({})
    expect(ruleOf(draftOf({ models: null }))).toEqual({ models: null })
  })

  test('keeps what was typed while another choice is tried, and does not send it', () => {
    const draft = draftOf({ tokens_per_day: 500 })
    const tried = {
      ...draft,
      tokens_per_day: { ...draft.tokens_per_day, choice: 'inherit' as const },
    }
    expect(ruleOf(tried)).toEqual({})
    expect(tried.tokens_per_day.text).toBe('500')
  })

  test('reads numbers as people write them, and guesses at none', () => {
    expect(['500000', ' 500 000', '500,000', '1_000_000', '-5'].map(numberOf)).toEqual([
      500000, 500000, 500000, 1000000, -5,
    ])
    expect(['', '1.5', '5,00', '10k', '1,0000', 'many'].map(numberOf)).toEqual(Array(6).fill(null))
  })

  test('is not sent with a value that is no number', () => {
    const draft = draftOf({ weight: 100, tokens_per_day: 5 })
    const empty = { ...draft, tokens_per_day: { ...draft.tokens_per_day, text: '' } }
    expect(mistakesOf(empty)).toEqual({ tokens_per_day: 'Give a whole number.' })
    expect(mistakesOf(draft)).toEqual({})
    expect(
      mistakesOf({ ...empty, tokens_per_day: { choice: 'unlimited', text: '', names: [] } }),
    ).toEqual({})
  })
})
