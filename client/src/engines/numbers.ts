/** What an engine is given at a time, in words: how much, and who says so. */
import type { Engine, EngineNumber } from '../api/client'
import { count } from '../ui/format'
import type { NumberName } from './draft'

interface Words {
  label: string
  meaning: string
  /** What 0 and null mean. */
  zero: string
}

export const NUMBER_WORDS: Record<NumberName, Words> = {
  slots: { label: 'Slots', meaning: 'Requests at a time.', zero: '0' },
  prefill_tokens: {
    label: 'Prompt tokens per step',
    meaning: 'What it reads at once; 0 is no bound.',
    zero: 'no bound',
  },
  kv_tokens: {
    label: 'Tokens in memory',
    meaning: 'Of all together; 0 is no bound.',
    zero: 'no bound',
  },
  reserved_slots: {
    label: 'Slots for light users',
    meaning: 'For who asks now and then.',
    zero: 'none',
  },
}

export function amountOf(name: NumberName, { value }: EngineNumber): string {
  if (value === null) return 'automatic'
  return value === 0 ? NUMBER_WORDS[name].zero : count(value)
}

const ORIGINS = {
  admin: 'set here',
  engine: 'told by the engine',
  measured: 'measured',
  default: 'default',
} as const

export const originOf = ({ origin }: EngineNumber) => ORIGINS[origin]

/** Where a default is changed for all engines. */
export function settingOf({ origin, setting }: EngineNumber): string | null {
  if (origin !== 'default') return null
  return setting === null ? 'It does not tell, so this is assumed.' : `The setting ${setting}.`
}

/** What holds while the field is empty; not known where an admin's number is in force. */
export function placeholderOf(name: NumberName, engine: Engine | undefined): string {
  const number = engine?.numbers?.[name]
  if (number === undefined || number.origin === 'admin') return 'not set'
  return `${amountOf(name, number)} (${originOf(number)})`
}
