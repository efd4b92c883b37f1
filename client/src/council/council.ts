/**
 * A council as a value, grown from its events.
 *
 * Each member has one part per task: its answer first, later perhaps a ranking,
 * a judgement or its say in a debate. Text without a role belongs to its latest
 * part. Events may be missing, repeated or early: whoever is named is there from
 * then on, and a part that has ended stays ended. Members whose state does not change keep their identity, so that
 * one member's token does not draw all of them again.
 */
import {
  type Allocation,
  type CouncilEvent,
  eventOf,
  type Progress,
  type Role,
  type Seat,
  type State,
  type Usage,
  type Verdict,
} from './events'

type Said = Extract<CouncilEvent, { type: 'text' }>

/** What the person said of it; the server keeps the latest. */
export type Judgement = { pick: string } | { thumb: 'up' | 'down' }

export interface Part {
  role: Role
  state: State
  reason: string | null
  text: string
  /** What its model thought before it spoke. */
  thinking: string
  usage: Usage | null
  firstTokenMs: number | null
  totalMs: number | null
}

export interface Member extends Seat {
  /** Why it was called in later; null for who was there from the beginning. */
  joined: string | null
  parts: readonly Part[]
}

/** Who wrote, or tried to write, the final answer; its text is the answer itself and stands there. */
export interface Chair extends Part {
  label: string
  model: string | null
}

export interface Council extends Allocation {
  members: readonly Member[]
  /** More than one where a chair failed and another took over. */
  chairs: readonly Chair[]
  verdict: Verdict | null
  judged: Judgement | null
}

const NEW: Council = {
  id: null,
  strategy: null,
  wanted: null,
  size: null,
  reason: null,
  steps: [],
  chair: null,
  members: [],
  chairs: [],
  verdict: null,
  judged: null,
}

/** The council after one more event; unchanged, perhaps none, where the event says nothing. */
export function heard(council: Council | null, told: Record<string, unknown>): Council | null {
  const event = eventOf(told)
  return event === null ? council : grow(council ?? NEW, event)
}

function grow(council: Council, event: CouncilEvent): Council {
  switch (event.type) {
    case 'allocated':
      return event.seats.reduce(seated, { ...council, ...known(event.allocation) })
    case 'joined':
      return withMember(seated(council, event.seat), event.seat.label, (member) => ({
        ...member,
        joined: event.reason ?? member.joined ?? '',
      }))
    case 'member':
      return progressed(council, event.progress)
    case 'text':
      return spoken(council, event)
    case 'verdict':
      return { ...council, verdict: event.verdict }
    case 'summary': {
      const { allocation, seats, progress, verdict } = event
      const told = { ...council, ...known(allocation), verdict: verdict ?? council.verdict }
      return progress.reduce(progressed, seats.reduce(seated, told))
    }
  }
}

/** Only what is told: a later event that leaves something out takes nothing back. */
function known(allocation: Allocation): Partial<Allocation> {
  const { steps, ...rest } = allocation
  const told = Object.entries(rest).filter(([, field]) => field !== null)
  return { ...Object.fromEntries(told), ...(steps.length > 0 ? { steps } : {}) }
}

function seated(council: Council, seat: Seat): Council {
  return withMember(council, seat.label, (member) => ({
    ...member,
    model: seat.model ?? member.model,
    engine: seat.engine ?? member.engine,
    isLeader: seat.isLeader || member.isLeader,
    sample: Math.max(seat.sample, member.sample),
  }))
}

function progressed(council: Council, progress: Progress): Council {
  const { label, role, isLeader } = progress
  if (role === 'chair') return chaired(council, progress)
  const told = withMember(council, label, (member) => {
    const model = progress.model ?? member.model
    return { ...member, model, parts: partsAfter(member.parts, progress) }
  })
  return isLeader ? led(told, label) : told
}

/** One leads at a time: another one who does takes the place of who fell out. */
function led(council: Council, label: string): Council {
  const members = council.members.map((member) => {
    const isLeader = member.label === label
    return member.isLeader === isLeader ? member : { ...member, isLeader }
  })
  return { ...council, members }
}

function partsAfter(parts: readonly Part[], progress: Progress): readonly Part[] {
  const at = parts.findLastIndex(({ role }) => role === progress.role)
  const before = parts[at]
  if (before === undefined) return [...parts, partOf(progress)]
  if (isOver(before.state) && !isOver(progress.state)) {
    // A member answers once, but may rank or argue in more than one round.
    return progress.role === 'member' ? parts : [...parts, partOf(progress)]
  }
  return parts.with(at, partOf(progress, before))
}

function chaired(council: Council, progress: Progress): Council {
  const { label } = progress
  const at = council.chairs.findIndex((chair) => chair.label === label)
  const before = council.chairs[at]
  const model = progress.model ?? before?.model ?? null
  if (before === undefined) {
    return { ...council, chairs: [...council.chairs, { ...partOf(progress), label, model }] }
  }
  if (isOver(before.state) && !isOver(progress.state)) return council
  const chair = { ...partOf(progress, before), label, model }
  return { ...council, chairs: council.chairs.with(at, chair) }
}

function partOf(progress: Progress, before: Part = silent(progress.role)): Part {
  const { state, reason, usage, firstTokenMs, totalMs } = progress
  const hasBegun = before.state === 'answering' && state === 'waiting'
  return {
    ...before,
    state: hasBegun ? 'answering' : state,
    reason: reason ?? before.reason,
    usage: usage ?? before.usage,
    firstTokenMs: firstTokenMs ?? before.firstTokenMs,
    totalMs: totalMs ?? before.totalMs,
  }
}

function spoken(council: Council, said: Said): Council {
  const { label, role } = said
  if (role === 'chair') {
    const thinks = (chair: Chair) => ({
      ...grown(chair, said),
      text: '',
      label,
      model: chair.model,
    })
    const chairs = council.chairs.map((chair) => (chair.label === label ? thinks(chair) : chair))
    return { ...council, chairs }
  }
  return withMember(council, label, (member) => {
    const at = member.parts.findLastIndex((part) => role === null || part.role === role)
    const part = member.parts[at]
    const parts =
      part === undefined
        ? [...member.parts, grown(silent(role ?? 'member'), said)]
        : member.parts.with(at, grown(part, said))
    return { ...member, parts }
  })
}

function grown(part: Part, { text, isThought }: Said): Part {
  const state = part.state === 'waiting' ? 'answering' : part.state
  return isThought
    ? { ...part, state, thinking: part.thinking + text }
    : { ...part, state, text: part.text + text }
}

const silent = (role: Role): Part => ({
  role,
  state: 'waiting',
  reason: null,
  text: '',
  thinking: '',
  usage: null,
  firstTokenMs: null,
  totalMs: null,
})

/** Changes one member, who is there from now on; they stand in the order of their labels. */
function withMember(council: Council, label: string, change: (member: Member) => Member): Council {
  const at = council.members.findIndex((member) => member.label === label)
  const before = council.members[at]
  if (before !== undefined) {
    return { ...council, members: council.members.with(at, change(before)) }
  }
  const stranger: Member = {
    label,
    model: null,
    engine: null,
    isLeader: false,
    sample: 0,
    joined: null,
    parts: [],
  }
  const members = [...council.members, change(stranger)]
  return { ...council, members: members.sort(byLabel) }
}

/** A, B, … Z, AA: as the columns of a sheet. */
const byLabel = (one: Member, other: Member) =>
  one.label.length - other.label.length || (one.label < other.label ? -1 : 1)

export const isOver = (state: State) => state !== 'waiting' && state !== 'answering'

/** What a member is at, or its answer when it is at nothing. */
export function currentPart({ parts }: Member): Part {
  return (
    parts.findLast(({ state }) => !isOver(state)) ??
    parts.find(({ role }) => role === 'member') ??
    parts.at(-1) ??
    silent('member')
  )
}

/** True for who was asked, or is yet to be asked, for an answer; some only judge those of others. */
export const isAnswering = ({ parts }: Member) =>
  parts.length === 0 || parts.some(({ role }) => role === 'member')
