import createClient, { type Middleware } from 'openapi-fetch'
import { asProblem, problemOf } from './errors'
import type { components, paths } from './schema'

type Schemas = components['schemas']
export type Principal = Schemas['Principal']
export type Role = Schemas['Principal']['role']
export type SetupOffer = Schemas['SetupOffer']
export type ApiKey = Schemas['ApiKey']
export type NewApiKey = Schemas['NewApiKey']
export type UsageRow = Schemas['UsageRow']
export type UsageReport = Schemas['UsageGroups']
export type UsageGroup = Schemas['UsageGroup']
export type UsageTotal = Schemas['UsageTotal']
export type ModelPrice = Schemas['ModelPrice']
export type PriceDefinition = Schemas['PriceDefinition']
export type User = Schemas['User']
export type Invitation = Schemas['Invitation']
export type Share = Schemas['Share']
export type EngineShare = Schemas['EngineShare']
export type OwnRequest = Schemas['OwnRequest']
export type BudgetShare = Schemas['BudgetShare']
export type QuotaRule = Schemas['QuotaRule']
export type QuotaRules = Schemas['QuotaRules']
export type QuotaStanding = Schemas['QuotaStanding']
export type LimitInForce = Schemas['LimitInForce']
export type AuditRow = Schemas['AuditRow']
export type Engine = Schemas['EngineStanding']
export type EngineKind = Schemas['EngineKind']
export type EngineNumber = Schemas['Number']
export type EngineSpec = Schemas['EngineSpec']
export type EngineChange = Schemas['EngineChange']
export type Conformance = Schemas['Conformance']
export type Machine = Schemas['HardwareView']
export type Device = Schemas['DeviceView']

type Listener = () => void
const unauthorized = new Set<Listener>()

/** Calls `listener` whenever an answer says that nobody is logged in. */
export function onUnauthorized(listener: Listener): () => void {
  unauthorized.add(listener)
  return () => unauthorized.delete(listener)
}

export function reportStatus(status: number): void {
  if (status === 401) for (const listener of unauthorized) listener()
}

const watch401: Middleware = {
  onResponse: ({ response }) => reportStatus(response.status),
}

export const api = createClient<paths>({
  baseUrl: window.location.origin,
  credentials: 'same-origin',
  // Looked up at each call, so that a test can put its own in place.
  fetch: (request) => fetch(request),
})
api.use(watch401)

interface Answer<T> {
  data?: T
  error?: unknown
  response: Response
}

/** Turns an answer of the client into its data, or throws a `Problem`. */
export async function value<T>(call: Promise<Answer<T>>): Promise<T> {
  let answer: Answer<T>
  try {
    answer = await call
  } catch (reason) {
    throw asProblem(reason)
  }
  if (!answer.response.ok) throw problemOf(answer.response, answer.error)
  return answer.data as T
}
