/** What is stored, as the messages of a conversation. */
import { isRecord, Problem } from '../api/errors'
import { markOf } from '../cloud/wire'
import type { StoredConversation, StoredMember, StoredMessage } from '../conversations/wire'
import { type Council, heard, type Judgement } from '../council/council'
import { type Answer, fresh, isOpen } from './answer'
import type { Message } from './branch'

const WHY = {
  interrupted: 'The server ended in the middle of this answer.',
  failed: 'The answer failed, and nobody knows why.',
}

/**
 * The messages with what the server tells in the place of what was known. Only the answer that is
 * `followed` is known better here than there. Oldest first; what is not stored comes last.
 */
export function merged(
  known: readonly Message[],
  stored: StoredConversation,
  followed: string | null,
  at: number,
): Message[] {
  const byId = new Map(known.flatMap((message) => (message.id ? [[message.id, message]] : [])))
  const keyOf = (id: string | null) => (id === null ? null : (byId.get(id)?.key ?? id))
  const told = stored.messages.map((message): Message => {
    const before = byId.get(message.id)
    if (before !== undefined && before.key === followed) return before
    const { id, parent_id, role, content } = message
    const node = { id, key: before?.key ?? id, parent: keyOf(parent_id) }
    if (role !== 'assistant') return { ...node, role, text: content }
    const was = before?.role === 'assistant' ? before.answer : null
    return { ...node, role, answer: answerOf(message, was, at) }
  })
  const fromThere = new Set(told.map(({ key }) => key))
  return [...known.filter(({ key }) => !fromThere.has(key)), ...told].sort(byAge)
}

/** Ids begin with their time. */
function byAge({ id: one }: Message, { id: other }: Message): number {
  if (one === null || other === null) return Number(one === null) - Number(other === null)
  return one < other ? -1 : Number(one > other)
}

function answerOf(message: StoredMessage, before: Answer | null, at: number): Answer {
  const { state, problem, input_tokens, output_tokens } = message
  const council = councilOf(message)
  const answer: Answer = {
    ...fresh(message.model, startOf(message, at)),
    state,
    text: message.content,
    thinking: council === null ? message.thinking : '',
    council: council && {
      ...council,
      judged: judgedOf(message) ?? before?.council?.judged ?? null,
    },
    cloud: markOf(message.cloud),
    pauses: before?.pauses ?? { count: 0, ms: 0 },
    firstTokenMs: message.first_token_ms,
    totalMs: message.total_ms,
    tokens: output_tokens === null ? null : { input: input_tokens ?? 0, output: output_tokens },
    cutShort: message.finish_reason === 'length',
    problem: null,
  }
  if (state === 'interrupted' || state === 'failed') {
    return { ...answer, problem: new Problem(problem ?? WHY[state]) }
  }
  const isSilent = isOpen(answer) && answer.text === '' && answer.thinking === ''
  return isSilent ? { ...answer, state: 'waiting' } : answer
}

/** What the person said of a council's answer. */
function judgedOf({ feedback }: StoredMessage): Judgement | null {
  if (feedback?.pick) return { pick: feedback.pick }
  return feedback?.thumb ? { thumb: feedback.thumb } : null
}

/** When it was asked, on the clock of `performance.now()`. */
function startOf({ created_at }: StoredMessage, at: number): number {
  const age = Date.now() - Date.parse(created_at)
  return at - (age > 0 ? age : 0)
}

type Told = Record<string, unknown>

/** Told as if it happened just now: who sat there, what each said, and how it ended. */
function councilOf({ council, members }: StoredMessage): Council | null {
  if (council === null) return null
  const reports = Array.isArray(council.members) ? council.members.filter(isRecord) : []
  const seats = reports.map((report): Told => ({ ...report, sample: sampleOf(report, reports) }))
  const start = heard(null, { ...council, type: 'summary', members: [] })
  const said = [...members]
  const take = ({ label, role }: Told) => {
    const at = said.findIndex((one) => one.label === label && one.role === role)
    return at === -1 ? undefined : said.splice(at, 1)[0]
  }
  // What nobody reported comes last, as its row says it.
  const turns = [...seats.map((report) => ({ report, row: take(report) })), ...said.map(turnOf)]
  return turns.reduce<Council | null>((told, { report, row }) => {
    const { label, model, role } = report
    const seat = { type: 'summary', members: [{ ...report, state: null }] }
    const begun = { type: 'member', label, model, role, state: 'answering' }
    const thought = { type: 'text', label, role, text: row?.thinking, is_thought: true }
    const text = { type: 'text', label, role, text: row?.content }
    return [seat, begun, thought, text, { ...report, type: 'member' }].reduce(heard, told)
  }, start)
}

function turnOf(row: StoredMember): { report: Told; row: StoredMember } {
  const { output_tokens, content: _, thinking: __, ...report } = row
  const usage = output_tokens === null ? null : { completion_tokens: output_tokens }
  return { report: { ...report, usage }, row }
}

/** Which sample of its model it is: that many of those before it have the same. */
function sampleOf({ label, model }: Told, reports: readonly Told[]): number {
  const same = reports.filter((other) => other.model === model && other.role === 'member')
  return Math.max(
    0,
    same.findIndex((other) => other.label === label),
  )
}
