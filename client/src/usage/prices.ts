/** A price as it is being typed, and what is said of it. */
import type { ModelPrice, PriceDefinition } from '../api/client'

export const EVERY_OTHER = '*'

export const titleOf = (model: string) => (model === EVERY_OTHER ? 'Every other model' : model)

export const AMOUNTS = [
  { name: 'input_per_million', label: 'A million tokens read', short: 'read', needed: true },
  { name: 'output_per_million', label: 'A million tokens written', short: 'written', needed: true },
  { name: 'per_gpu_second', label: 'A second of GPU time', short: 'GPU second', needed: false },
  { name: 'per_kwh', label: 'A kilowatt-hour', short: 'kWh', needed: false },
] as const

type AmountName = (typeof AMOUNTS)[number]['name']
export type FieldName = AmountName | 'model' | 'since'
export type Draft = Record<FieldName, string>
export type Mistakes = Partial<Record<FieldName, string>>

export const EMPTY: Draft = {
  model: '',
  input_per_million: '',
  output_per_million: '',
  per_gpu_second: '',
  per_kwh: '',
  since: '',
}

export const draftOf = (price: ModelPrice): Draft => ({
  model: price.model,
  input_per_million: price.input_per_million,
  output_per_million: price.output_per_million,
  per_gpu_second: price.per_gpu_second ?? '',
  per_kwh: price.per_kwh ?? '',
  since: '',
})

/** "0,10" is what half of the world types. */
const amountOf = (text: string) => text.trim().replace(',', '.')

export function mistakesOf(draft: Draft): Mistakes {
  const mistakes: Mistakes = {}
  if (draft.model.trim() === '') mistakes.model = 'Choose a model.'
  for (const { name, needed } of AMOUNTS) {
    const text = amountOf(draft[name])
    if (text === '' && needed) mistakes[name] = 'Give an amount; 0 is one.'
    else if (text !== '' && !/^\d{1,9}(\.\d{1,9})?$/.test(text)) {
      mistakes[name] = 'An amount like 0.25, with at most nine decimals.'
    }
  }
  return mistakes
}

export function definitionOf(draft: Draft): PriceDefinition {
  const optional = (name: AmountName) => amountOf(draft[name]) || null
  return {
    input_per_million: amountOf(draft.input_per_million),
    output_per_million: amountOf(draft.output_per_million),
    per_gpu_second: optional('per_gpu_second'),
    per_kwh: optional('per_kwh'),
    since: draft.since === '' ? null : new Date(draft.since).toISOString(),
  }
}

/** "0.10 read · 0.40 written · 0.32 kWh" */
export const priceWords = (price: ModelPrice) =>
  AMOUNTS.flatMap(({ name, short }) => {
    const amount = price[name]
    return amount === null ? [] : [`${amount} ${short}`]
  }).join(' · ')

export const isField = (param: string | null): param is FieldName =>
  param !== null && Object.hasOwn(EMPTY, param)
