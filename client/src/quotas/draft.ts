/**
 * A rule while it is edited: for each limit one of three choices, and what was
 * typed, which is kept while another choice is tried.
 */
import type { QuotaRule } from '../api/client'
import { count } from '../ui/format'
import { LIMITS, LISTS, type LimitName } from './limits'

export type Choice = 'inherit' | 'value' | 'unlimited'

export interface Field {
  choice: Choice
  /** What was typed, for a number. */
  text: string
  /** For a list: names and patterns of models, or steps. */
  names: string[]
}

export type Draft = Readonly<Record<LimitName, Field>>

export function draftOf(rule: QuotaRule): Draft {
  return Object.fromEntries(LIMITS.map(({ name }) => [name, fieldOf(rule[name])])) as Draft
}

function fieldOf(value: number | string[] | null | undefined): Field {
  const empty: Field = { choice: 'inherit', text: '', names: [] }
  if (value === undefined) return empty
  if (value === null) return { ...empty, choice: 'unlimited' }
  return Array.isArray(value)
    ? { ...empty, choice: 'value', names: value }
    : { ...empty, choice: 'value', text: count(value) }
}

/** The number somebody means: "500000", "500 000", "500,000". Null where it is none. */
export function numberOf(text: string): number | null {
  const digits = text.trim().replace(/(\d)[\s,_’'](?=\d{3}(?!\d))/g, '$1')
  return /^-?\d{1,15}$/.test(digits) ? Number(digits) : null
}

/** Fields that hold no number, which the server could not even be told. */
export function mistakesOf(draft: Draft): Partial<Record<LimitName, string>> {
  const wrong = LIMITS.filter(({ name }) => {
    const { choice, text } = draft[name]
    return !LISTS.has(name) && choice === 'value' && numberOf(text) === null
  })
  return Object.fromEntries(wrong.map(({ name }) => [name, 'Give a whole number.']))
}

/** The rule to send: inherited limits are left out, unlimited ones are null. */
export function ruleOf(draft: Draft): QuotaRule {
  const spoken = LIMITS.flatMap(({ name }) => {
    const { choice, text, names } = draft[name]
    if (choice === 'inherit') return []
    if (choice === 'unlimited') return [[name, null]]
    return [[name, LISTS.has(name) ? names : numberOf(text)]]
  })
  return Object.fromEntries(spoken) as QuotaRule
}
