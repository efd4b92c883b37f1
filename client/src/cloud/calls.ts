/** The calls about clouds; each throws a `Problem`. */
import { call } from '../api/call'
import type {
  BoxRule,
  Cap,
  Consent,
  Departure,
  DepartureSummary,
  Provider,
  ProviderCheck,
  ProviderSpec,
  Rule,
  Standing,
} from './wire'

const json = (body: unknown) => JSON.stringify(body)

export const readStanding = (): Promise<Standing> => call('GET', '/api/cloud')
export const setOwnRule = (rule: Rule): Promise<Standing> =>
  call('PUT', '/api/cloud/policy', json(rule))

const ADMIN = '/api/admin/cloud'
const capOf = (user: string) => `${ADMIN}/caps/${encodeURIComponent(user)}`

export const readBox = (): Promise<BoxRule> => call('GET', `${ADMIN}/policy`)
export const setBoxRule = (rule: Rule): Promise<BoxRule> =>
  call('PUT', `${ADMIN}/policy`, json(rule))
export const setCap = (user: string, rule: Rule): Promise<Cap> =>
  call('PUT', capOf(user), json(rule))
export const clearCap = (user: string): Promise<void> => call('DELETE', capOf(user))

export const PAGE = 50
export const fileOfDepartures = '/api/egress/export'

/** What left, the newest first; `before` is the `seq` of the last one known. */
export function listDepartures(before: number | null): Promise<Departure[]> {
  const query = new URLSearchParams({ limit: String(PAGE) })
  if (before !== null) query.set('before', String(before))
  return call('GET', `/api/egress?${query}`)
}

export const sumDepartures = (first: string, last: string): Promise<DepartureSummary> =>
  call('GET', `/api/admin/egress/summary?${new URLSearchParams({ from: first, to: last })}`)

export const listConsents = (): Promise<Consent[]> => call('GET', '/api/cloud/consents')
export const answerConsent = (token: string, answer: 'yes' | 'no'): Promise<unknown> =>
  call('POST', `/api/cloud/consents/${encodeURIComponent(token)}`, json({ answer }))

const PROVIDERS = `${ADMIN}/providers`
const providerOf = (name: string) => `${PROVIDERS}/${encodeURIComponent(name)}`

/** A key is sent, and never told again. */
type WithKey<T> = T & { api_key?: string }

export const listProviders = (): Promise<Provider[]> => call('GET', PROVIDERS)
export const addProvider = (spec: WithKey<ProviderSpec>): Promise<Provider> =>
  call('POST', PROVIDERS, json(spec))
export const changeProvider = (
  name: string,
  change: WithKey<Partial<ProviderSpec>>,
): Promise<Provider> => call('PATCH', providerOf(name), json(change))
export const removeProvider = (name: string): Promise<void> => call('DELETE', providerOf(name))
export const checkProvider = (name: string): Promise<ProviderCheck> =>
  call('POST', `${providerOf(name)}/check`)
