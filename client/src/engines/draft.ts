/** An engine as it is being typed, and what is wrong with it before the server need be asked. */
import type { EngineSpec } from '../api/client'
import { KINDS } from './words'

export interface Draft {
  name: string
  kind: string
  url: string
  apiKey: string
  /** Empty: the engine or the settings say how many. */
  slots: string
  movesModels: boolean
}

/** The fields as the server calls them, so that what it refuses finds its place. */
export const FIELDS = ['name', 'kind', 'url', 'api_key', 'slots', 'moves_models'] as const
export type FieldName = (typeof FIELDS)[number]
export type Mistakes = Partial<Record<FieldName, string>>

export const EMPTY: Draft = {
  name: '',
  kind: KINDS[0].value,
  url: '',
  apiKey: '',
  slots: '',
  movesModels: false,
}

const NAME = /^(?!test\/)[A-Za-z0-9][A-Za-z0-9._:-]*(\/[A-Za-z0-9][A-Za-z0-9._:-]*)*$/
const NAME_CHARACTERS_MAX = 100
const SLOTS_MAX = 100_000

export function mistakesOf({ name, url, slots }: Draft): Mistakes {
  const mistakes: Mistakes = {}
  const trimmed = name.trim()
  if (trimmed === '') mistakes.name = 'Give it a name.'
  else if (!NAME.test(trimmed) || trimmed.length > NAME_CHARACTERS_MAX) {
    mistakes.name = 'Letters, digits and . _ : - only, with / between parts; at most 100.'
  }
  if (url.trim() === '') mistakes.url = 'Give its address.'
  if (slotsOf(slots) === undefined) mistakes.slots = SLOTS_MISTAKE
  return mistakes
}

export const SLOTS_MISTAKE = 'Give a whole number from 1 to 100,000, or nothing.'

/** The number, null for nothing, undefined for what is no such number. */
export function slotsOf(text: string): number | null | undefined {
  const digits = text.replace(/[\s,]/g, '')
  if (digits === '') return null
  const slots = /^\d+$/.test(digits) ? Number(digits) : 0
  return slots >= 1 && slots <= SLOTS_MAX ? slots : undefined
}

export const movesOf = (kind: string) => KINDS.find(({ value }) => value === kind)?.moves

export const specOf = (draft: Draft): EngineSpec => ({
  name: draft.name.trim(),
  kind: draft.kind,
  url: draft.url.trim(),
  api_key: draft.apiKey.trim(),
  slots: slotsOf(draft.slots) ?? null,
  moves_models: draft.movesModels && movesOf(draft.kind) !== undefined,
  is_draining: false,
})
