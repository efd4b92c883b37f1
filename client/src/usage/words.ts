/** Reports in words: by what they are made, and their numbers. */
import type { UsageGroup, UsageTotal } from '../api/client'
import { count, energy, longTime, money } from '../ui/format'
import { longDay } from './days'

export type Field = 'day' | 'user' | 'model' | 'key' | 'engine' | 'council' | 'placement'

const LABELS: Record<Field, string> = {
  day: 'Day',
  user: 'Person',
  model: 'Model',
  key: 'API key',
  engine: 'Engine',
  council: 'Council',
  placement: 'Where',
}

export const labelOf = (field: Field) => LABELS[field]

const OWN: Field[] = ['day', 'model', 'council', 'key', 'placement']
const ALL: Field[] = ['user', 'model', 'day', 'key', 'engine', 'council', 'placement']

export const fieldsFor = (everybody: boolean) => (everybody ? ALL : OWN)

const told = (name: string | null | undefined, otherwise: string) =>
  name === null || name === undefined ? otherwise : name

/** What stands at the head of a row. */
export function nameOf(row: UsageGroup, field: Field): string {
  switch (field) {
    case 'day':
      return longDay(row.day ?? '')
    case 'user':
      return told(row.user, 'somebody who is gone')
    case 'key':
      return row.key_id == null ? 'in the browser' : told(row.key, 'a key that is gone')
    case 'council':
      return row.council === 'unknown' ? 'a council that is gone' : told(row.council, 'no council')
    case 'placement':
      return PLACES[row.placement ?? ''] ?? row.placement ?? ''
    default:
      return row[field] ?? ''
  }
}

const PLACES: Record<string, string> = { local: 'on this box', cloud: 'in the cloud' }

/** Tells rows apart, also those of two people who have the same name. */
export function keyOf(row: UsageGroup, field: Field): string {
  if (field === 'user') return row.user_id ?? ''
  if (field === 'key') return `${row.key_id} ${row.user_id}`
  return String(row[field])
}

export type Metric = 'tokens' | 'requests' | 'gpu' | 'energy' | 'cost'

interface Measure {
  value: Metric
  label: string
  /** For the chart's height; 0 where nothing is known. */
  of: (row: UsageTotal) => number
  words: (row: UsageTotal) => string
}

const NOTHING = '–'

export const MEASURES: readonly Measure[] = [
  {
    value: 'tokens',
    label: 'Tokens',
    of: (row) => row.input_tokens + row.output_tokens,
    words: (row) => `${count(row.input_tokens + row.output_tokens)} tokens`,
  },
  {
    value: 'requests',
    label: 'Requests',
    of: (row) => row.requests,
    words: (row) => `${count(row.requests)} requests`,
  },
  {
    value: 'gpu',
    label: 'GPU time',
    of: (row) => row.gpu_ms,
    words: (row) => longTime(row.gpu_ms),
  },
  {
    value: 'energy',
    label: 'Energy',
    of: (row) => row.energy_mj ?? 0,
    words: (row) => energyWords(row),
  },
  {
    value: 'cost',
    label: 'Cost',
    of: (row) => Number(row.cost ?? 0),
    words: (row) => costWords(row),
  },
]

export const measureOf = (metric: Metric) =>
  MEASURES.find(({ value }) => value === metric) ?? (MEASURES[0] as Measure)

export const energyWords = ({ energy_mj }: UsageTotal) =>
  energy_mj === null ? NOTHING : energy(energy_mj)
export const costWords = ({ cost }: UsageTotal) => (cost === null ? NOTHING : money(cost))

/** What is not in the sums, and why. */
export function remarksOf({ requests, unpriced_requests, unmetered_requests }: UsageTotal) {
  const of = (some: number) => `${count(some)} of the requests`
  const verb = (some: number) => (some === 1 ? 'is' : 'are')
  const remarks: { about: 'cost' | 'energy'; text: string }[] = []
  if (unpriced_requests > 0) {
    const text =
      unpriced_requests === requests
        ? 'No cost is told: the models had no price then.'
        : `${of(unpriced_requests)} ${verb(unpriced_requests)} not in the cost: the models had no price then.`
    remarks.push({ about: 'cost', text })
  }
  if (unmetered_requests > 0) {
    const text =
      unmetered_requests === requests
        ? 'No energy is told: no device measured it then.'
        : `${of(unmetered_requests)} ${verb(unmetered_requests)} not in the energy: no device measured it then.`
    remarks.push({ about: 'energy', text })
  }
  return remarks
}
