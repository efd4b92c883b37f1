/** What the server tells of clouds, as it stands on the wire. Amounts are millionths of the admin's currency. */
import { isRecord } from '../api/errors'
import type { components } from '../api/schema'

type Schemas = components['schemas']

export type Mode = Schemas['CloudTarget']['mode']
/** From the strictest on. */
export const MODES = ['never', 'ask', 'pseudonymised', 'allow'] as const satisfies Mode[]
/** What a conversation may say for itself; null: as its person's rules have it. */
export type Wish = Mode | 'private' | null
/** What one scope says; a field that is absent says nothing. */
export type Rule = Schemas['CloudRule']
export type Exception = Schemas['CloudException']
export type OnPersonalData = NonNullable<Rule['on_personal_data']>
export type Winner = Schemas['CloudValue']['won_by']
export type Form = 'whole' | 'pseudonymised'

/** The schema does not say which value it is. */
export interface Said<T> {
  value: T
  won_by: Winner
}

export type Target = Omit<Schemas['CloudTarget'], 'on_personal_data' | 'replaces'> & {
  on_personal_data: Said<OnPersonalData>
  /** Whether personal data is replaced in whatever leaves. */
  replaces: Said<boolean>
}

/** `limit_micros` null: unlimited; 0: nothing may leave. */
export type Budget = Schemas['CloudBudget']

type Values = 'mode' | 'in_force' | 'on_personal_data' | 'allows_code' | 'patience_ms'
export type Standing = Omit<Schemas['CloudStanding'], Values> & {
  mode: Said<Mode>
  in_force: Target[]
  on_personal_data: Said<OnPersonalData>
  allows_code: Said<boolean>
  patience_ms: Said<number>
}

export type Cap = Schemas['CloudCap']
export type BoxRule = Schemas['CloudBox']

/** How many things of each type were found. */
export type Counts = Record<string, number>

/** One request that left. What has no end yet has no outcome. */
export type Departure = Schemas['EgressRow']
export type DepartureCount = Schemas['EgressCount']
export type DepartureSummary = Schemas['EgressSummary']

/** Something that was found in a body, before anything in it was replaced; `text` is how it begins. */
export type Found = Schemas['Found']

/**
 * A question to its person whether one exact body may leave. `body` is null where another replica
 * holds it, or nobody waits any more.
 */
export type Consent = Schemas['CloudConsent']

/** The same as a waiting stream tells it. */
export interface Asks {
  token: string
  provider: string
  model: string
  expiresAt: string
  bodyBytes: number
}

export function asksOf(told: unknown): Asks | null {
  if (!isRecord(told)) return null
  const { token, provider, model, expires_at, body_bytes } = told
  if (typeof token !== 'string' || typeof provider !== 'string') return null
  return {
    token,
    provider,
    model: wordOf(model),
    expiresAt: wordOf(expires_at),
    bodyBytes: typeof body_bytes === 'number' ? body_bytes : 0,
  }
}

/** Whose answer it is, where a cloud gave it. */
export interface Mark {
  provider: string
  model: string
  form: Form
  /** What stands in the answer in the place of one's own words, and could not be put back. */
  unrestored: readonly string[]
}

/** The mark after one more event: who answers comes first, what could not be put back last. */
export function markOf(told: unknown, before: Mark | null = null): Mark | null {
  if (!isRecord(told)) return before
  const { provider, model, form, unrestored } = told
  const mark: Mark | null =
    typeof provider === 'string'
      ? {
          provider,
          model: wordOf(model),
          form: form === 'pseudonymised' ? form : 'whole',
          unrestored: before?.unrestored ?? [],
        }
      : before
  if (mark === null || !Array.isArray(unrestored)) return mark
  return { ...mark, unrestored: unrestored.filter((word) => typeof word === 'string') }
}

const wordOf = (value: unknown) => (typeof value === 'string' ? value : '')

export type ProviderKind = Schemas['NewCloudProvider']['kind']

/** `stands_in_for`: names of models of this box, with * for anything; none: it is never chosen. */
export type CloudModel = Omit<Schemas['CloudModel'], 'stands_in_for' | 'leaves_out'> & {
  stands_in_for: string[]
  leaves_out?: string[]
}

export type ProviderSpec = Omit<Schemas['NewCloudProvider'], 'api_key' | 'models'> & {
  models: CloudModel[]
}

/**
 * `has_key`: null where this server cannot open it. `is_resting`: it has failed, or asked for a
 * pause, so nothing is sent there just now. `problem`: why nothing is sent there at all.
 */
export type Provider = Omit<Schemas['CloudProviderStanding'], 'kind' | 'models'> &
  Pick<ProviderSpec, 'kind' | 'models'>

export type ProviderCheck = Schemas['CloudProviderCheck']
