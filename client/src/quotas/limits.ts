/** The limits of a quota in words. Their names, bounds and order are the server's (quotas/policy.py). */
import type { LimitInForce, QuotaRule } from '../api/client'
import { count } from '../ui/format'

export type LimitName = keyof QuotaRule
export type LimitValue = LimitInForce['value']

export interface Limit {
  name: LimitName
  label: string
  hint: string
}

export const LIMITS: readonly Limit[] = [
  {
    name: 'weight',
    label: 'Weight',
    hint: 'Percent of a normal share; 200 = twice a normal share. Counts while several people wait.',
  },
  {
    name: 'requests_per_minute',
    label: 'Requests per minute',
    hint: 'How many may enter in one minute.',
  },
  {
    name: 'tokens_per_minute',
    label: 'Tokens per minute',
    hint: 'Read and written together.',
  },
  { name: 'tokens_per_day', label: 'Tokens per day', hint: 'A day ends at midnight UTC.' },
  { name: 'tokens_per_month', label: 'Tokens per month', hint: 'Of the calendar, in UTC.' },
  {
    name: 'in_flight_max',
    label: 'Running at a time',
    hint: 'Further requests wait in the queue.',
  },
  {
    name: 'queue_length_max',
    label: 'Waiting at a time',
    hint: 'Further requests are refused.',
  },
  {
    name: 'context_tokens_max',
    label: 'Tokens per request',
    hint: 'Its prompt and its answer together.',
  },
  {
    name: 'models',
    label: 'Models',
    hint: 'Names, or patterns: llama-* is every name that begins so. An empty list allows none.',
  },
  {
    name: 'council_size_max',
    label: 'Members of a council',
    hint: 'How many models may answer one question together.',
  },
  {
    name: 'council_steps',
    label: 'Steps of a council',
    hint: 'What a council may do on a full box before it is refused. An empty list allows nothing.',
  },
  {
    name: 'cloud_cents_per_month',
    label: 'Cents for the cloud per month',
    hint: 'Hundredths of your currency, for what clouds answer while the box is full. With none nothing leaves.',
  },
]

/** Limits that are used up and come back with the calendar. */
export const BUDGETS: ReadonlySet<string> = new Set<LimitName>([
  'requests_per_minute',
  'tokens_per_minute',
  'tokens_per_day',
  'tokens_per_month',
])

/** What the server calls it, where it knows a limit that this page does not. */
export function labelOf(name: string): string {
  return LIMITS.find((limit) => limit.name === name)?.label ?? name.replaceAll('_', ' ')
}

/** Limits that are lists of names. */
export const LISTS: ReadonlySet<string> = new Set<LimitName>(['models', 'council_steps'])

/** What a council may do instead of being refused, in this order (quotas/policy.py). */
export const COUNCIL_STEPS = ['smaller_council', 'smaller_model', 'shorter_answer', 'queue']

export function valueWords(name: string, value: LimitValue): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : value.join(', ')
  if (value === null) return LISTS.has(name) ? 'all' : 'unlimited'
  return name === 'weight' ? `${count(value)}\u00a0%` : count(value)
}

/** Which rule it was: the server says `user ann`, `role member`, `default` or `built-in`. */
export function ruleWords(rule: string, own = false): string {
  if (rule === 'default') return 'everybody’s rule'
  const [kind, name] = split(rule)
  if (kind === 'role') return `the rule of ${name}s`
  if (kind === 'user') return own ? 'your own rule' : `the rule of ${name}`
  return 'built in'
}

/** Whose rule it is: "everybody", "members", "ann". */
export function subjectWords(subject: string): string {
  if (subject === 'default') return 'everybody'
  const [kind, name] = split(subject)
  return kind === 'role' ? `${name}s` : name
}

function split(subject: string): [kind: string, name: string] {
  const space = subject.indexOf(' ')
  return space === -1 ? [subject, subject] : [subject.slice(0, space), subject.slice(space + 1)]
}

/** "tokens per day 500,000 · running at a time 8". */
export function ruleSummary(rule: QuotaRule): string {
  return LIMITS.flatMap(({ name, label }) => {
    const value = rule[name]
    return value === undefined ? [] : [`${lower(label)} ${valueWords(name, value)}`]
  }).join(' · ')
}

export const lower = (label: string) => label.charAt(0).toLowerCase() + label.slice(1)
