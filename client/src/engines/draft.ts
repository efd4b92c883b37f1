/** An engine as it is being typed, and what is wrong with it before the server need be asked. */
import type { Engine, EngineChange, EngineSpec } from '../api/client'
import { movesOf } from './words'

/** The numbers that an admin may set; empty: the engine or the settings say them. */
export const NUMBERS = ['slots', 'prefill_tokens', 'kv_tokens', 'reserved_slots'] as const
export type NumberName = (typeof NUMBERS)[number]

export interface Draft {
  name: string
  kind: string
  url: string
  apiKey: string
  /** The key that the engine has is taken away from it. */
  forgetsKey: boolean
  numbers: Record<NumberName, string>
  movesModels: boolean
  devices: string[]
}

/** The fields as the server calls them, so that what it refuses finds its place. */
const FIELDS = ['name', 'kind', 'url', 'api_key', ...NUMBERS, 'moves_models', 'devices'] as const
export type FieldName = (typeof FIELDS)[number]
export type Mistakes = Partial<Record<FieldName, string>>

export const fieldOf = (param: string | undefined | null): FieldName | undefined =>
  FIELDS.find((name) => name === param)

const NO_NUMBERS = { slots: '', prefill_tokens: '', kv_tokens: '', reserved_slots: '' }

export const EMPTY: Draft = {
  name: '',
  kind: 'openai',
  url: '',
  apiKey: '',
  forgetsKey: false,
  numbers: NO_NUMBERS,
  movesModels: false,
  devices: [],
}

/** What an admin once typed; what the engine or the settings say is left empty. */
export function draftOf({ name, kind, url, numbers, moves_models, devices }: Engine): Draft {
  const typed = { ...NO_NUMBERS }
  for (const field of NUMBERS) {
    const number = numbers?.[field]
    if (number?.origin === 'admin') typed[field] = String(number.value)
  }
  return {
    ...EMPTY,
    name,
    kind,
    url: url ?? '',
    numbers: typed,
    movesModels: moves_models,
    devices,
  }
}

const NAME = /^(?!test\/|kinds$)[A-Za-z0-9][A-Za-z0-9._:-]*(\/[A-Za-z0-9][A-Za-z0-9._:-]*)*$/
const NAME_CHARACTERS_MAX = 100
const BOUNDS: Record<NumberName, [number, number]> = {
  slots: [1, 100_000],
  prefill_tokens: [0, 2 ** 40],
  kv_tokens: [0, 2 ** 40],
  reserved_slots: [0, 100_000],
}

export function mistakesOf({ name, url, numbers }: Draft): Mistakes {
  const mistakes: Mistakes = {}
  const trimmed = name.trim()
  if (trimmed === '') mistakes.name = 'Give it a name.'
  else if (!NAME.test(trimmed) || trimmed.length > NAME_CHARACTERS_MAX) {
    mistakes.name = 'Letters, digits and . _ : - only, with / between parts; at most 100.'
  }
  if (url.trim() === '') mistakes.url = 'Give its address.'
  for (const field of NUMBERS) {
    if (numberOf(field, numbers[field]) === undefined) {
      mistakes[field] = `Give a whole number from ${BOUNDS[field][0]} on, or nothing.`
    }
  }
  return mistakes
}

/** The number, null for nothing, undefined for what is no such number. */
function numberOf(field: NumberName, text: string): number | null | undefined {
  const digits = text.replace(/[\s,]/g, '')
  if (digits === '') return null
  if (!/^\d{1,13}$/.test(digits)) return undefined
  const [least, most] = BOUNDS[field]
  const number = Number(digits)
  return number >= least && number <= most ? number : undefined
}

/** All that can be changed, as the server takes it. */
function fieldsOf(draft: Draft) {
  const { kind, url, numbers, movesModels, devices } = draft
  return {
    kind,
    url: url.trim(),
    slots: numberOf('slots', numbers.slots) ?? null,
    prefill_tokens: numberOf('prefill_tokens', numbers.prefill_tokens) ?? null,
    kv_tokens: numberOf('kv_tokens', numbers.kv_tokens) ?? null,
    reserved_slots: numberOf('reserved_slots', numbers.reserved_slots) ?? null,
    moves_models: movesModels && movesOf(kind) !== undefined,
    devices,
  }
}

export const specOf = (draft: Draft): EngineSpec => ({
  name: draft.name.trim(),
  api_key: draft.apiKey.trim(),
  is_draining: false,
  ...fieldsOf(draft),
})

/** Only what is another than before: somebody else may be changing the rest. */
export function changesOf(before: Draft, after: Draft): EngineChange {
  const old: Record<string, unknown> = fieldsOf(before)
  const changed = Object.entries(fieldsOf(after)).filter(
    ([field, value]) => JSON.stringify(value) !== JSON.stringify(old[field]),
  )
  const key = after.apiKey.trim()
  return {
    ...Object.fromEntries(changed),
    ...(key !== '' || after.forgetsKey ? { api_key: key } : {}),
  }
}
