import { expect, test } from 'vitest'
import type { QuotaRules } from '../api/client'
import { LIMITS } from './limits'
import { standingOf } from './scope'

const built_in = {
  ...Object.fromEntries(LIMITS.map(({ name }) => [name, null])),
  weight: 100,
  queue_length_max: 100,
}
const ann = { id: 'a', name: 'ann', role: 'member' as const }
const updated_at = '2030-01-01T00:00:00Z'
const rules: QuotaRules = {
  built_in,
  default: { tokens_per_day: 1000, in_flight_max: 1, weight: 50 },
  roles: [{ role: 'member', rule: { tokens_per_day: null, in_flight_max: 2 }, updated_at }],
  users: [{ user: ann, rule: { in_flight_max: 3 }, updated_at }],
}

test('a limit comes from the strongest rule that speaks of it, and null speaks', () => {
  const { rule, limits, inherited } = standingOf({ kind: 'user', ...ann }, rules)
  expect(rule).toEqual({ in_flight_max: 3 })
  expect(limits.in_flight_max).toEqual({ value: 3, rule: 'user ann' })
  expect(inherited.in_flight_max).toEqual({ value: 2, rule: 'role member' })
  expect(limits.tokens_per_day).toEqual({ value: null, rule: 'role member' })
  expect(limits.weight).toEqual({ value: 50, rule: 'default' })
  expect(limits.queue_length_max).toEqual({ value: 100, rule: 'built-in' })
})

test('a role inherits from everybody, and everybody from what is built in', () => {
  const member = standingOf({ kind: 'role', role: 'member' }, rules)
  expect(member.inherited.tokens_per_day).toEqual({ value: 1000, rule: 'default' })
  const admin = standingOf({ kind: 'role', role: 'admin' }, rules)
  expect(admin.limits.in_flight_max).toEqual({ value: 1, rule: 'default' })
  const everybody = standingOf({ kind: 'default' }, rules)
  expect(everybody.inherited.weight).toEqual({ value: 100, rule: 'built-in' })
  expect(everybody.limits.weight).toEqual({ value: 50, rule: 'default' })
})
