import { reportStatus } from '../api/client'
import { asProblem, problemOf } from '../api/errors'
import type { Judgement } from './council'

export type Feedback = Judgement | { regenerated: true }

/** Tells the server what the person thinks of a council; a later word replaces an earlier one. */
export async function sendFeedback(council: string, feedback: Feedback): Promise<void> {
  let response: Response
  try {
    response = await fetch(`/api/councils/${encodeURIComponent(council)}/feedback`, {
      method: 'POST',
      credentials: 'same-origin',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(feedback),
    })
  } catch (reason) {
    throw asProblem(reason)
  }
  if (response.ok) return
  reportStatus(response.status)
  throw problemOf(response, await response.json().catch(() => null))
}
