/** A rule while it is edited. Silence is a choice of its own: what is left out says nothing. */
import type { Exception, Mode, OnPersonalData, Rule } from './wire'

export type Scope = 'own' | 'cap' | 'box'

export interface Draft {
  mode: Mode | ''
  onPersonalData: OnPersonalData | ''
  allowsCode: '' | 'yes' | 'no'
  /** In seconds. */
  patience: string
  exceptions: readonly Exception[]
  councilMembers: boolean
  detectionModel: string
  /** In seconds. */
  detection: string
}

const seconds = (ms: number | undefined) => (ms === undefined ? '' : String(ms / 1000))

export function draftOf(rule: Rule, scope: Scope): Draft {
  return {
    // A person who is silent means `ask`.
    mode: rule.mode ?? (scope === 'own' ? 'ask' : ''),
    onPersonalData: rule.on_personal_data ?? '',
    allowsCode: rule.allows_code === undefined ? '' : rule.allows_code ? 'yes' : 'no',
    patience: seconds(rule.patience_ms),
    exceptions: rule.for ?? [],
    councilMembers: rule.council_members ?? false,
    detectionModel: rule.detection_model ?? '',
    detection: seconds(rule.detection_ms),
  }
}

export type Mistakes = Partial<Record<'patience' | 'detection' | 'exceptions', string>>

export function mistakesOf(draft: Draft): Mistakes {
  const mistakes: Mistakes = {}
  for (const name of ['patience', 'detection'] as const) {
    if (msOf(draft[name]) === undefined) mistakes[name] = 'Give a number of seconds, or nothing.'
  }
  if (draft.exceptions.some(({ provider, model }) => provider === '' || model === '')) {
    mistakes.exceptions = 'Each exception needs a provider and a model; * is any.'
  }
  return mistakes
}

/** Undefined for what is no number, null for nothing. */
function msOf(text: string): number | null | undefined {
  const trimmed = text.trim().replace(',', '.')
  if (trimmed === '') return null
  return /^\d{1,6}(\.\d{1,3})?$/.test(trimmed) ? Math.round(Number(trimmed) * 1000) : undefined
}

/** The rule to send, whole. */
export function ruleOf(draft: Draft, scope: Scope, before: Rule): Rule {
  const { mode, onPersonalData, allowsCode, exceptions } = draft
  const patience = msOf(draft.patience)
  const detection = msOf(draft.detection)
  const everybodys: Rule = {
    ...(mode === '' ? {} : { mode }),
    ...(onPersonalData === '' ? {} : { on_personal_data: onPersonalData }),
    ...(allowsCode === '' ? {} : { allows_code: allowsCode === 'yes' }),
    ...(exceptions.length === 0 ? {} : { for: [...exceptions] }),
  }
  if (scope === 'cap') return everybodys
  const patient = typeof patience === 'number' ? { patience_ms: patience } : {}
  if (scope === 'own') return { ...everybodys, ...patient }
  return {
    ...everybodys,
    ...patient,
    ...(before.is_on === undefined ? {} : { is_on: before.is_on }),
    ...(draft.councilMembers ? { council_members: true } : {}),
    ...(draft.detectionModel === '' ? {} : { detection_model: draft.detectionModel }),
    ...(typeof detection === 'number' ? { detection_ms: detection } : {}),
  }
}

/** "pseudonymised at the most · code may not leave" */
export function ruleWords(rule: Rule): string {
  const { mode, on_personal_data, allows_code, for: exceptions = [] } = rule
  return [
    mode !== undefined && `${mode} at the most`,
    on_personal_data !== undefined && `personal data: ${on_personal_data}`,
    allows_code !== undefined && (allows_code ? 'code may leave' : 'no code'),
    exceptions.length > 0 && `${exceptions.length} exception${exceptions.length === 1 ? '' : 's'}`,
  ]
    .filter((word) => word !== false)
    .join(' · ')
}
