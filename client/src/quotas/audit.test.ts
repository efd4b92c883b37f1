import { expect, test } from 'vitest'
import type { AuditRow } from '../api/client'
import { auditSentence } from './audit'

const row: AuditRow = {
  id: '1',
  at: '2030-01-01T00:00:00Z',
  actor: 'admin',
  actor_id: 'x',
  action: 'quota.set',
  subject: 'user ann',
  subject_id: 'a',
  before: null,
  after: null,
}
const told = (change: Partial<AuditRow>) =>
  auditSentence({ ...row, ...change }).replaceAll('\u00a0', ' ')

test('a change of one limit says what it was and what it is', () => {
  const before = { tokens_per_day: 100_000, weight: 100 }
  expect(told({ before, after: { tokens_per_day: null, weight: 100 } })).toBe(
    'admin changed tokens per day of ann from 100,000 to unlimited',
  )
  expect(told({ before, after: { weight: 100 } })).toBe(
    'admin changed tokens per day of ann from 100,000 to inherited',
  )
  expect(told({ subject: 'role member', after: { weight: 200 } })).toBe(
    'admin set weight of members to 200 %',
  )
})

test('a change of several limits lists them', () => {
  const after = { models: ['llama-*', 'tiny'], weight: 50 }
  expect(told({ subject: 'default', before: { weight: 100 }, after })).toBe(
    'admin changed the rule of everybody: weight from 100 % to 50 %; models to llama-*, tiny',
  )
})

test('a rule that is cleared is told with what it said', () => {
  const cleared = { action: 'quota.clear', actor: 'command line', before: { in_flight_max: 2 } }
  expect(told(cleared)).toBe(
    'Somebody on the command line cleared the rule of ann: running at a time 2',
  )
})
