/** A provider while it is described, and what is wrong with it before the server need be asked. */
import type { CloudModel, Provider, ProviderKind, ProviderSpec } from './wire'

export interface ModelDraft {
  name: string
  standsInFor: string[]
  /** What a million tokens cost, in the admin's currency. */
  input: string
  output: string
  outputMax: string
  context: string
  leavesOut: string[]
}

export interface Draft {
  name: string
  kind: ProviderKind
  url: string
  apiKey: string
  models: readonly ModelDraft[]
}

export const KINDS: { value: ProviderKind; label: string; url: string }[] = [
  { value: 'openai', label: 'OpenAI-compatible', url: 'https://api.example.com/v1' },
  { value: 'anthropic', label: 'Anthropic', url: 'https://api.anthropic.com/v1' },
]

export const EMPTY: Draft = { name: '', kind: 'openai', url: '', apiKey: '', models: [] }

export const newModel = (): ModelDraft => ({
  name: '',
  standsInFor: ['*'],
  input: '',
  output: '',
  outputMax: '4096',
  context: '',
  leavesOut: [],
})

const MICROS = 1_000_000

export const draftOf = ({ name, kind, url, models }: Provider): Draft => ({
  name,
  kind,
  url,
  apiKey: '',
  models: models.map((model) => ({
    name: model.name,
    standsInFor: model.stands_in_for,
    input: String(model.input_micros_per_million / MICROS),
    output: String(model.output_micros_per_million / MICROS),
    outputMax: String(model.output_tokens_max),
    context: model.context_tokens == null ? '' : String(model.context_tokens),
    leavesOut: model.leaves_out ?? [],
  })),
})

/** By field: `name`, `url`, `api_key`, or `models.2.input`. */
export type Mistakes = Record<string, string>

export function mistakesOf(draft: Draft, isNew: boolean): Mistakes {
  const mistakes: Mistakes = {}
  if (isNew && !/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(draft.name.trim())) {
    mistakes.name = 'Letters, digits and . _ - only.'
  }
  if (draft.url.trim() === '') mistakes.url = 'Give its address.'
  if (isNew && draft.apiKey.trim() === '') mistakes.api_key = 'Give the key.'
  draft.models.forEach((model, at) => {
    const wrong = (field: keyof ModelDraft, message: string) => {
      mistakes[`models.${at}.${field}`] = message
    }
    if (model.name.trim() === '') wrong('name', 'Give its name.')
    if (microsOf(model.input) === null) wrong('input', 'An amount like 2.50.')
    if (microsOf(model.output) === null) wrong('output', 'An amount like 10.')
    if (!isCount(model.outputMax)) wrong('outputMax', 'Give a whole number.')
    if (model.context.trim() !== '' && !isCount(model.context)) {
      wrong('context', 'Give a whole number, or nothing.')
    }
  })
  return mistakes
}

const isCount = (text: string) => /^[1-9]\d{0,8}$/.test(text.trim())

/** Millionths, exactly: no float is part of an amount. */
function microsOf(text: string): number | null {
  const parts = /^(\d{1,6})(?:[.,](\d{1,6}))?$/.exec(text.trim())
  if (parts === null) return null
  return Number(parts[1]) * MICROS + Number((parts[2] ?? '').padEnd(6, '0'))
}

export const modelsOf = (draft: Draft): CloudModel[] =>
  draft.models.map((model) => ({
    name: model.name.trim(),
    stands_in_for: model.standsInFor,
    input_micros_per_million: microsOf(model.input) ?? 0,
    output_micros_per_million: microsOf(model.output) ?? 0,
    output_tokens_max: Number(model.outputMax),
    context_tokens: model.context.trim() === '' ? null : Number(model.context),
    leaves_out: model.leavesOut,
  }))

export const specOf = (draft: Draft): ProviderSpec & { api_key: string } => ({
  name: draft.name.trim(),
  kind: draft.kind,
  url: draft.url.trim(),
  models: modelsOf(draft),
  is_enabled: true,
  api_key: draft.apiKey.trim(),
})

/** Only what is another than before; another URL needs the key once more. */
export function changeOf(draft: Draft, before: Provider) {
  const url = draft.url.trim()
  const key = draft.apiKey.trim()
  return {
    models: modelsOf(draft),
    ...(url === before.url ? {} : { url }),
    ...(key === '' ? {} : { api_key: key }),
  }
}
