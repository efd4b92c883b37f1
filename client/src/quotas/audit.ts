/** The audit log as sentences. */
import type { AuditRow } from '../api/client'
import { LIMITS, type LimitValue, labelOf, lower, subjectWords, valueWords } from './limits'

type Rule = AuditRow['before']

/** "admin changed tokens per day of ann from 100,000 to unlimited". */
export function auditSentence({ actor, action, subject, before, after }: AuditRow): string {
  const who = actor === 'command line' ? 'Somebody on the command line' : actor
  const whom = subjectWords(subject)
  if (action !== 'quota.set' && action !== 'quota.clear') return `${who}: ${action}, ${whom}`
  if (after === null) return `${who} cleared the rule of ${whom}: ${listed(before)}`
  const changed = namesIn(before, after).filter((name) => !same(before?.[name], after[name]))
  const [only, ...more] = changed
  if (only === undefined) return `${who} set the rule of ${whom}`
  if (more.length === 0) return `${who} ${changeOf(only, whom, before, after)}`
  const parts = changed.map((name) => `${lower(labelOf(name))} ${step(name, before, after)}`)
  return `${who} changed the rule of ${whom}: ${parts.join('; ')}`
}

function changeOf(name: string, whom: string, before: Rule, after: Rule): string {
  const what = `${lower(labelOf(name))} of ${whom}`
  return before?.[name] === undefined
    ? `set ${what} to ${words(name, after?.[name])}`
    : `changed ${what} ${step(name, before, after)}`
}

const step = (name: string, before: Rule, after: Rule) =>
  before?.[name] === undefined
    ? `to ${words(name, after?.[name])}`
    : `from ${words(name, before[name])} to ${words(name, after?.[name])}`

const words = (name: string, value: unknown) =>
  value === undefined ? 'inherited' : valueWords(name, value as LimitValue)

const listed = (rule: Rule) =>
  namesIn(rule, null)
    .map((name) => `${lower(labelOf(name))} ${words(name, rule?.[name])}`)
    .join('; ')

/** In the order of the form; limits that this page does not know come last. */
function namesIn(before: Rule, after: Rule): string[] {
  const there = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])
  const known = LIMITS.map(({ name }): string => name)
  return [
    ...known.filter((name) => there.has(name)),
    ...[...there].filter((name) => !known.includes(name)),
  ]
}

const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other)
