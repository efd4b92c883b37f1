/**
 * What a council tells while it works: one event per chunk of the stream, in
 * the extension `wirthforge.council`, tagged by `type`. Read defensively, as
 * the rest of the stream is: a kind of event, a state or a role that this
 * client does not know is skipped (a newer server may know more), and a field
 * that is missing is null.
 */
import { isRecord } from '../api/errors'

const STATES = ['waiting', 'answering', 'done', 'failed', 'revoked', 'late', 'dropped'] as const
const ROLES = ['member', 'rank', 'judge', 'debate', 'chair'] as const

export type State = (typeof STATES)[number]
export type Role = (typeof ROLES)[number]

export interface Usage {
  input: number
  output: number
}

/** A member as the allocator seats it. */
export interface Seat {
  label: string
  model: string | null
  engine: string | null
  isLeader: boolean
  /** Which sample of its model it is, from 0. */
  sample: number
}

/** How far a member has come with one task. */
export interface Progress {
  label: string
  model: string | null
  role: Role
  state: State
  reason: string | null
  isLeader: boolean
  usage: Usage | null
  firstTokenMs: number | null
  totalMs: number | null
}

export interface Allocation {
  id: string | null
  strategy: string | null
  /** How many were asked for; null where that was left to the server. */
  wanted: number | null
  size: number | null
  reason: string | null
  /** What was done to fit the load. */
  steps: readonly string[]
  /** The model of the chair. */
  chair: string | null
}

export interface Opinion {
  answer: string
  labels: readonly string[]
}

export interface Verdict {
  method: string
  /** From 0 to 1; null where it cannot be told. */
  agreement: number | null
  opinions: readonly Opinion[]
  /** Whose answer the final one is; null where a chair wrote it. */
  winner: string | null
  /** Who decided; null where nobody had to. */
  by: string | null
  reason: string | null
}

export type CouncilEvent =
  | { type: 'allocated'; allocation: Allocation; seats: readonly Seat[] }
  | { type: 'member'; progress: Progress }
  | { type: 'text'; label: string; role: Role | null; text: string; isThought: boolean }
  | { type: 'joined'; seat: Seat; reason: string | null }
  | { type: 'verdict'; verdict: Verdict }
  | {
      type: 'summary'
      allocation: Allocation
      seats: readonly Seat[]
      progress: readonly Progress[]
      verdict: Verdict | null
    }

/** Null for what this client does not know. */
export function eventOf(told: Record<string, unknown>): CouncilEvent | null {
  switch (told.type) {
    case 'allocated':
      return {
        type: 'allocated',
        allocation: allocationOf(told),
        seats: each(told.members, seatOf),
      }
    case 'member': {
      const progress = progressOf(told)
      return progress && { type: 'member', progress }
    }
    case 'text': {
      const [label, text] = [wordOf(told.label), wordOf(told.text)]
      if (label === null || text === null) return null
      const role = ROLES.find((known) => known === told.role) ?? null
      return { type: 'text', label, role, text, isThought: told.is_thought === true }
    }
    case 'joined': {
      const seat = seatOf(told)
      return seat && { type: 'joined', seat, reason: wordOf(told.reason) }
    }
    case 'verdict':
      return { type: 'verdict', verdict: verdictOf(told) }
    case 'summary':
      return {
        type: 'summary',
        allocation: allocationOf(told),
        seats: each(told.members, (entry) => (entry.role === 'chair' ? null : seatOf(entry))),
        progress: each(told.members, progressOf),
        verdict: isRecord(told.verdict) ? verdictOf(told.verdict) : null,
      }
    default:
      return null
  }
}

function allocationOf(told: Record<string, unknown>): Allocation {
  const { id, strategy, wanted, size, reason, steps, chair } = told
  return {
    id: wordOf(id),
    strategy: wordOf(strategy),
    wanted: numberOf(wanted),
    size: numberOf(size),
    reason: wordOf(reason),
    steps: wordsOf(steps),
    chair: wordOf(isRecord(chair) ? chair.model : chair),
  }
}

function seatOf({ label, model, engine, is_leader, sample }: Record<string, unknown>): Seat | null {
  const name = wordOf(label)
  if (name === null) return null
  return {
    label: name,
    model: wordOf(model),
    engine: wordOf(engine),
    isLeader: is_leader === true,
    sample: numberOf(sample) ?? 0,
  }
}

function progressOf(told: Record<string, unknown>): Progress | null {
  const { label, model, reason, usage, first_token_ms, total_ms } = told
  const name = wordOf(label)
  const role = ROLES.find((known) => known === (told.role ?? 'member'))
  const state = STATES.find((known) => known === told.state)
  if (name === null || role === undefined || state === undefined) return null
  return {
    label: name,
    model: wordOf(model),
    role,
    state,
    reason: wordOf(reason),
    isLeader: told.is_leader === true,
    usage: usageOf(usage),
    firstTokenMs: numberOf(first_token_ms),
    totalMs: numberOf(total_ms),
  }
}

function verdictOf(told: Record<string, unknown>): Verdict {
  const agreement = numberOf(told.agreement)
  return {
    method: wordOf(told.method) ?? '',
    agreement: agreement === null ? null : Math.min(1, Math.max(0, agreement)),
    opinions: each(told.opinions, ({ answer, labels }) => ({
      answer: wordOf(answer) ?? '',
      labels: wordsOf(labels),
    })),
    winner: wordOf(told.winner),
    by: wordOf(told.by),
    reason: wordOf(told.reason),
  }
}

function usageOf(usage: unknown): Usage | null {
  if (!isRecord(usage)) return null
  const { prompt_tokens, completion_tokens } = usage
  return { input: numberOf(prompt_tokens) ?? 0, output: numberOf(completion_tokens) ?? 0 }
}

function each<T>(list: unknown, read: (entry: Record<string, unknown>) => T | null): T[] {
  if (!Array.isArray(list)) return []
  return list.flatMap((entry: unknown) => {
    const known = isRecord(entry) ? read(entry) : null
    return known === null ? [] : [known]
  })
}

const wordOf = (value: unknown) => (typeof value === 'string' && value !== '' ? value : null)
const numberOf = (value: unknown) => (typeof value === 'number' ? value : null)
const wordsOf = (list: unknown) =>
  Array.isArray(list) ? list.filter((word) => typeof word === 'string') : []

/** True when the event brings a word to read. */
export const isText = (told: Record<string, unknown>) => told.type === 'text'

/** True when what was said of the final answer so far counts no more: another chair begins it again. */
export const isRestart = (told: Record<string, unknown>) =>
  told.type === 'content' && told.is_restart === true
