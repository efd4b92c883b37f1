import { reportStatus } from './client'
import { asProblem, problemOf } from './errors'

/** One call of an address that the typed client does not know yet; throws a `Problem`. */
export async function call<T>(method: string, path: string, body?: string | Blob): Promise<T> {
  let response: Response
  try {
    response = await fetch(path, {
      method,
      credentials: 'same-origin',
      ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body }),
    })
  } catch (reason) {
    throw asProblem(reason)
  }
  reportStatus(response.status)
  if (response.status === 204) return undefined as T
  const told: unknown = await response.json().catch(() => null)
  if (!response.ok) throw problemOf(response, told)
  return told as T
}
