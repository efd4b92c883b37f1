/**
 * Somebody's turn in a queue: how many come before, and about when it will be.
 *
 * The server tells it anew about every second, from an estimate that sways a
 * little. So the moment that was told first stands, and is counted down to,
 * until the place in the queue changes or the estimate has moved a good way.
 */
import { span } from './format'

export interface Turn {
  /** How many requests go first; null where the server does not know. */
  ahead: number | null
  /** When it will be, on the clock of `performance.now()`; null where nothing is known yet. */
  dueAt: number | null
  /** When the server last told. */
  toldAt: number
}

/** An estimate that moves by less than either is the same estimate. */
const SWAY_MS = 2000
const SWAY_PART = 0.25

/** What is known after the server has told once more. */
export function told(
  before: Turn | null,
  ahead: number | null,
  waitMs: number | null,
  now: number,
): Turn {
  const dueAt = waitMs === null ? null : now + waitMs
  const moved =
    before === null || before.ahead !== ahead || before.dueAt === null || dueAt === null
      ? Number.POSITIVE_INFINITY
      : Math.abs(dueAt - before.dueAt)
  const calm = moved <= Math.max(SWAY_MS, (waitMs ?? 0) * SWAY_PART)
  return { ahead, dueAt: calm && before !== null ? before.dueAt : dueAt, toldAt: now }
}

/** "2 ahead of you, about 14 s", "You are next", "Waiting". */
export function turnWords({ ahead, dueAt }: Turn, now: number): string {
  const place = ahead === null ? 'Waiting' : ahead === 0 ? 'You are next' : `${ahead} ahead of you`
  return dueAt === null ? place : `${place}, about ${span(dueAt - now)}`
}
