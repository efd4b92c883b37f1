/** What is said about a council, in plain words. */
import { counted } from '../ui/format'
import {
  type Chair,
  type Council,
  currentPart,
  isAnswering,
  isOver,
  type Member,
  type Part,
} from './council'
import type { Opinion, State, Verdict } from './events'

/** As a member's card shows it; once all is over, who was still at work or never asked is that. */
export type Shown = State | 'unfinished' | 'unasked'

export function shownState(member: Member, running: boolean): Shown {
  const { state } = currentPart(member)
  if (running || isOver(state)) return state
  return member.parts.length === 0 ? 'unasked' : 'unfinished'
}

const STATE_WORDS: Record<Shown, string> = {
  waiting: 'waiting',
  answering: 'answering',
  done: 'done',
  failed: 'failed',
  revoked: 'taken back for somebody who waits',
  late: 'too late',
  dropped: 'dropped',
  unfinished: 'not finished',
  unasked: 'not asked',
}

const AT_WORK: Record<Part['role'], string> = {
  member: 'answering',
  rank: 'ranking the answers',
  judge: 'judging the answers',
  debate: 'arguing',
  chair: 'writing the answer',
}

export const PART_TITLES: Record<Part['role'], string> = {
  member: 'Answer',
  rank: 'Its ranking of the others',
  judge: 'Its judgement',
  debate: 'In the debate',
  chair: 'As the chair',
}

export function stateWords(member: Member, running: boolean): string {
  const shown = shownState(member, running)
  return shown === 'answering' ? AT_WORK[currentPart(member).role] : STATE_WORDS[shown]
}

/** "3 of 5", or "3 members" where no number was asked for. */
export function sizeWords({ size, wanted, members }: Council): string {
  const seats = size ?? members.length
  return wanted === null || seats > wanted ? counted(seats, 'member') : `${seats} of ${wanted}`
}

/** The same with those beyond it: "2 of 2 and 1 called in later". */
export function fullSizeWords(council: Council): string {
  const { size, members } = council
  const more = members.filter(isAnswering).length - (size ?? members.length)
  return more > 0 ? `${sizeWords(council)} and ${more} called in later` : sizeWords(council)
}

/** Why it has this size, without the numbers that the sentence of the server begins with. */
export function reasonWords({ reason }: Council): string | null {
  const rest = reason?.replace(/^\d+ of \d+[:,.]?\s*/, '') ?? ''
  return rest === '' ? null : rest
}

const STEPS: Record<string, string | undefined> = {
  smaller_council: 'a smaller council',
  smaller_model: 'a smaller model',
  shorter_answer: 'a shorter answer',
  queue: 'a wait in the queue',
  cloud: 'a model in the cloud',
}

/** What was done to fit the load; null for nothing. */
export function stepWords({ steps }: Council): string | null {
  if (steps.length === 0) return null
  return `To fit the load: ${steps.map((step) => STEPS[step] ?? step.replaceAll('_', ' ')).join(', ')}.`
}

const STRATEGIES: Record<string, string | undefined> = {
  'self-k': 'One model answers several times.',
  vote: 'What most say is the answer.',
  judge: 'The best answer is chosen.',
  race: 'The first good answer counts.',
  karpathy: 'They answer, rank each other unnamed, and a chair concludes.',
  debate: 'They answer, then argue once more.',
}

export const strategyWords = ({ strategy }: Council): string | null =>
  (strategy === null ? undefined : STRATEGIES[strategy]) ?? null

/** The model, and which of its samples where it sits there more than once. */
export function memberName(member: Member, members: readonly Member[]): string {
  const { model, sample } = member
  if (model === null) return 'a model'
  const same = members.filter((other) => other.model === model).length
  return same > 1 ? `${model}, sample ${sample + 1}` : model
}

const TROUBLES: Partial<Record<State, string>> = {
  failed: 'failed',
  revoked: 'taken back',
  late: 'too late',
  dropped: 'dropped',
}

/** Everybody in one line; who did not answer comes first, for a line may be cut at its end. */
export function foldedWords({ members }: Council): string[] {
  const trouble = (member: Member) => {
    const { state } = member.parts.find(({ role }) => role === 'member') ?? currentPart(member)
    return TROUBLES[state]
  }
  return [
    ...members.flatMap((member) => {
      const words = trouble(member)
      return words === undefined ? [] : [`${member.label} ${words}`]
    }),
    ...members.map((member) => `${member.label} ${memberName(member, members)}`),
  ]
}

const METHODS: Record<string, string | undefined> = {
  agreement: 'They agree, so the answer stands as it is.',
  vote: 'Decided by vote.',
  chair: 'A chair made one answer of theirs.',
  judge: 'A judge chose the answer.',
  rank: 'They ranked each other’s answers.',
  race: 'The first good answer won.',
  solo: 'One model answered.',
}

/** The server's own sentence says it best. */
export const verdictWords = ({ method, reason }: Verdict): string =>
  reason ?? METHODS[method] ?? 'It is decided.'

/** Whose the final answer is: "A, small" for a member's own, "the chair, small" for a new one. */
export function authorWords({ members, chairs }: Council, { winner, by }: Verdict): string | null {
  const member = members.find(({ label }) => label === winner)
  if (member !== undefined) return `${member.label}, ${memberName(member, members)}`
  const chair = chairs.find(({ label }) => label === by)
  return chair === undefined ? null : `the chair, ${chair.model ?? 'a model'}`
}

/** Most held first; the winner's before others that as many hold. */
export function sortedOpinions({ opinions, winner }: Verdict): Opinion[] {
  const wins = ({ labels }: Opinion) => (winner !== null && labels.includes(winner) ? 1 : 0)
  return [...opinions].sort(
    (one, other) => wins(other) - wins(one) || other.labels.length - one.labels.length,
  )
}

export const percent = (part: number) => `${Math.round(part * 100)}\u00a0%`

const CHAIR_ENDS: Partial<Record<State, string>> = {
  failed: 'failed',
  revoked: 'was taken back for somebody who waits',
  late: 'was too late',
}

/** What the chair is at, or why it could not: null where there is nothing to say. */
export function chairWords(chair: Chair, running: boolean): string | null {
  const model = chair.model ?? 'its model'
  const why = chair.reason === null ? '' : `: ${chair.reason}`
  if (!isOver(chair.state)) {
    if (!running) return null
    return chair.state === 'waiting'
      ? `The chair, ${model}, is about to write the answer.`
      : `The chair, ${model}, writes the answer.`
  }
  if (chair.state === 'done') return null
  return `The chair, ${model}, ${CHAIR_ENDS[chair.state] ?? 'was not needed'}${why}`
}

/** For ears: who is at what. */
export function spokenWords(council: Council): string {
  const { members, chairs } = council
  const states = members.map((member) => `${member.label} ${stateWords(member, true)}`)
  const chair = chairs.at(-1)
  const writing = chair === undefined ? null : chairWords(chair, true)
  return [`Council, ${sizeWords(council)}`, ...states, writing].filter(Boolean).join('. ')
}
