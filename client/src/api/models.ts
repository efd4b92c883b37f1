import { reportStatus } from './client'
import { asProblem, isRecord, problemOf } from './errors'

export interface Model {
  id: string
  /** True for the built-in stand-in that needs no GPU. */
  demonstration: boolean
  /** True for one that asks several others. */
  council: boolean
}

/** The models this box serves, in the server's order. */
export async function listModels(): Promise<Model[]> {
  try {
    const response = await fetch('/v1/models', { credentials: 'same-origin' })
    const body: unknown = await response.json().catch(() => null)
    reportStatus(response.status)
    if (!response.ok) throw problemOf(response, body)
    return modelsOf(body)
  } catch (reason) {
    throw asProblem(reason)
  }
}

export function modelsOf(body: unknown): Model[] {
  const list: unknown = isRecord(body) ? body.data : null
  if (!Array.isArray(list)) return []
  return list.flatMap((entry: unknown) => {
    if (!isRecord(entry) || typeof entry.id !== 'string') return []
    const extra = isRecord(entry.wirthforge) ? entry.wirthforge : {}
    const [demonstration, council] = [extra.demonstration === true, extra.council === true]
    return [{ id: entry.id, demonstration, council }]
  })
}
