import { expect, test } from 'vitest'
import { type Draft, draftOf, mistakesOf, ruleOf } from './rule'
import type { Rule } from './wire'

const full: Rule = {
  is_on: true,
  mode: 'pseudonymised',
  on_personal_data: 'deny',
  allows_code: false,
  for: [{ provider: 'acme', model: '*', mode: 'never' }],
  patience_ms: 2500,
  council_members: true,
  detection_model: 'small',
  detection_ms: 2000,
}

test('a rule that is not changed is sent as it was', () => {
  expect(ruleOf(draftOf(full, 'box'), 'box', full)).toEqual(full)
  expect(ruleOf(draftOf({}, 'box'), 'box', {})).toEqual({})
  expect(ruleOf(draftOf({}, 'cap'), 'cap', {})).toEqual({})
})

test('each scope says only what it may', () => {
  const draft = draftOf(full, 'box')
  expect(Object.keys(ruleOf(draft, 'own', full))).not.toContain('is_on')
  expect(Object.keys(ruleOf(draft, 'own', full))).toContain('patience_ms')
  expect(Object.keys(ruleOf(draft, 'cap', full))).not.toContain('patience_ms')
})

test('a person who said nothing means ask', () => {
  expect(draftOf({}, 'own').mode).toBe('ask')
})

test('what is no number of seconds, and exceptions without a name, are told', () => {
  const draft: Draft = { ...draftOf({}, 'own'), patience: 'soon' }
  expect(mistakesOf(draft)).toHaveProperty('patience')
  const exceptions = [{ provider: '', model: '*', mode: 'ask' as const }]
  expect(mistakesOf({ ...draft, patience: '1,5', exceptions })).toEqual({
    exceptions: expect.any(String),
  })
})
