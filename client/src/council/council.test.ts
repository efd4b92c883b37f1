import { describe, expect, test } from 'vitest'
import { type Council, currentPart, heard, isAnswering } from './council'

type Told = Record<string, unknown>

const allocated: Told = {
  type: 'allocated',
  id: 'c1',
  strategy: 'duo',
  wanted: 5,
  size: 2,
  reason: '2 of 5: somebody else is waiting.',
  binding: 'waiting',
  steps: ['smaller_council'],
  members: [
    { label: 'A', model: 'small', engine: 'e', is_leader: true, sample: 0 },
    { label: 'B', model: 'large', engine: 'e', is_leader: false, sample: 0 },
  ],
  chair: 'large',
}
const member = (label: string, state: string, more: Told = {}): Told => ({
  type: 'member',
  label,
  model: null,
  role: 'member',
  state,
  reason: null,
  usage: null,
  first_token_ms: null,
  total_ms: null,
  ...more,
})
const text = (label: string, words: string, more: Told = {}): Told => ({
  type: 'text',
  label,
  text: words,
  ...more,
})

const told = (...events: Told[]) => events.reduce<Council | null>(heard, null)
const of = (council: Council | null, label: string) =>
  council?.members.find((seated) => seated.label === label)
const first = (council: Council | null, label: string) => of(council, label)?.parts[0]

describe('a council', () => {
  test('knows its size, its reason, its steps and who sits in it', () => {
    expect(told(allocated)).toMatchObject({
      id: 'c1',
      strategy: 'duo',
      wanted: 5,
      size: 2,
      reason: '2 of 5: somebody else is waiting.',
      steps: ['smaller_council'],
      chair: 'large',
      members: [
        { label: 'A', model: 'small', engine: 'e', isLeader: true, parts: [] },
        { label: 'B', model: 'large', isLeader: false, parts: [] },
      ],
    })
  })

  test('follows a member from waiting to done', () => {
    const usage = { prompt_tokens: 9, completion_tokens: 4, cached_tokens: 0 }
    const council = told(
      allocated,
      member('B', 'waiting'),
      member('B', 'answering', { first_token_ms: 90 }),
      text('B', 'Hel'),
      text('B', 'lo'),
      member('B', 'done', { usage, total_ms: 700 }),
    )
    expect(of(council, 'B')?.parts).toEqual([
      {
        role: 'member',
        state: 'done',
        reason: null,
        text: 'Hello',
        thinking: '',
        usage: { input: 9, output: 4 },
        firstTokenMs: 90,
        totalMs: 700,
      },
    ])
  })

  test('tells why a member fell out', () => {
    const council = told(allocated, member('B', 'revoked', { reason: 'Somebody light waits.' }))
    expect(first(council, 'B')).toMatchObject({
      state: 'revoked',
      reason: 'Somebody light waits.',
    })
  })

  test('is whole in whatever order its events come', () => {
    const council = told(
      text('B', 'Early'),
      member('B', 'waiting'),
      member('A', 'answering', { model: 'small' }),
      allocated,
    )
    expect(council?.members.map(({ label, model }) => [label, model])).toEqual([
      ['A', 'small'],
      ['B', 'large'],
    ])
    expect(first(council, 'B')).toMatchObject({ state: 'answering', text: 'Early' })
  })

  test('can do without its allocation', () => {
    const council = told(text('A', 'Hello'), member('A', 'done'))
    expect(council).toMatchObject({ id: null, size: null, wanted: null })
    expect(first(council, 'A')).toMatchObject({ state: 'done', text: 'Hello' })
  })

  test('is the same when events are repeated', () => {
    const events = [allocated, member('A', 'answering'), text('A', 'Hi'), member('A', 'done')]
    const again = told(...events, allocated, member('A', 'answering'), member('A', 'done'))
    expect(again).toEqual(told(...events))
  })

  test('ignores events, states and roles that it does not know', () => {
    const council = told(allocated, member('A', 'answering'))
    for (const event of [
      { type: 'moved', label: 'A' },
      {},
      member('A', 'levitating'),
      member('A', 'done', { role: 'jester' }),
      { type: 'text', label: 'A' },
      { type: 'joined' },
    ]) {
      expect(heard(council, event)).toBe(council)
    }
    expect(heard(null, { type: 'moved' })).toBeNull()
  })

  test('does not draw one member again because another speaks', () => {
    const before = told(allocated, text('A', 'Hi'))
    const after = heard(before, text('B', 'Ho'))
    expect(of(after, 'A')).toBe(of(before, 'A'))
    expect(of(after, 'B')).not.toBe(of(before, 'B'))
  })

  test('seats who joins later, and tells why', () => {
    const reason = 'The first two disagree.'
    const council = told(allocated, { type: 'joined', label: 'C', model: 'third', reason })
    expect(of(council, 'C')).toMatchObject({ model: 'third', joined: reason })
    expect(of(council, 'A')?.joined).toBeNull()
  })

  test('has another leader when the first one falls out', () => {
    const council = told(
      allocated,
      member('A', 'failed', { is_leader: true }),
      member('B', 'answering', { is_leader: true, reason: 'It leads now: A is failed.' }),
    )
    expect(council?.members.map(({ isLeader }) => isLeader)).toEqual([false, true])
  })

  test('keeps rankings and rounds of a debate apart from the answer', () => {
    const round = (words: string) => [
      member('A', 'waiting', { role: 'debate' }),
      text('A', words, { role: 'debate' }),
      member('A', 'done', { role: 'debate' }),
    ]
    const council = told(
      allocated,
      text('A', 'Answer'),
      member('A', 'done'),
      ...round('One'),
      ...round('Two'),
    )
    expect(of(council, 'A')?.parts.map(({ role, text }) => [role, text])).toEqual([
      ['member', 'Answer'],
      ['debate', 'One'],
      ['debate', 'Two'],
    ])
  })

  test('gives text without a role to what the member is at', () => {
    const ranking = member('A', 'answering', { role: 'rank' })
    const council = told(text('A', 'Answer'), member('A', 'done'), ranking, text('A', 'B, A'))
    expect(of(council, 'A')?.parts[1]).toMatchObject({ role: 'rank', text: 'B, A' })
    expect(of(council, 'A') && currentPart(of(council, 'A') as never).role).toBe('rank')
  })

  test('keeps thoughts apart from what is said', () => {
    const council = told(text('A', 'Hm.', { is_thought: true }), text('A', 'Yes.'))
    expect(first(council, 'A')).toMatchObject({ thinking: 'Hm.', text: 'Yes.' })
  })

  test('names each chair, and takes none for a member', () => {
    const chair = (label: string, state: string, more: Told = {}) =>
      member(label, state, { role: 'chair', model: `m${label}`, ...more })
    const council = told(
      allocated,
      chair('X', 'waiting'),
      chair('X', 'failed', { reason: 'The engine is gone.' }),
      chair('Y', 'answering'),
      text('Y', 'Hm.', { role: 'chair', is_thought: true }),
      chair('X', 'waiting'),
    )
    expect(council?.chairs).toMatchObject([
      { label: 'X', model: 'mX', state: 'failed', reason: 'The engine is gone.' },
      { label: 'Y', model: 'mY', state: 'answering', thinking: 'Hm.', text: '' },
    ])
    expect(council?.members).toHaveLength(2)
  })

  test('knows a judge who gives no answer', () => {
    const council = told(allocated, member('J', 'answering', { role: 'judge', model: 'jay' }))
    expect(council?.members.map(isAnswering)).toEqual([true, true, false])
  })

  test('reads a verdict, and mends one that is out of bounds', () => {
    const verdict = {
      type: 'verdict',
      method: 'vote',
      agreement: 2,
      opinions: [{ answer: '42', labels: ['A', 7] }, 'junk'],
      winner: 'A',
      by: null,
      reason: 'One says 42.',
    }
    expect(told(allocated, verdict)?.verdict).toEqual({
      method: 'vote',
      agreement: 1,
      opinions: [{ answer: '42', labels: ['A'] }],
      winner: 'A',
      by: null,
      reason: 'One says 42.',
    })
  })

  test('is put right by its summary, which takes no text away', () => {
    const report = { label: 'A', model: 'small', engine: 'e', role: 'member', state: 'done' }
    const summary = {
      ...allocated,
      type: 'summary',
      steps: [],
      members: [
        { ...report, usage: { prompt_tokens: 1, completion_tokens: 2 } },
        { ...report, label: 'B', state: 'late', reason: 'It took longer than 20 s.' },
        { ...report, label: 'A', role: 'chair' },
      ],
      verdict: { method: 'solo', agreement: 1, opinions: [], reason: 'Only A answered.' },
    }
    const council = told(allocated, text('A', 'Hello'), summary)
    expect(first(council, 'A')).toMatchObject({ state: 'done', text: 'Hello' })
    expect(first(council, 'A')?.usage).toEqual({ input: 1, output: 2 })
    expect(first(council, 'B')).toMatchObject({ state: 'late' })
    expect(council).toMatchObject({ steps: ['smaller_council'], verdict: { method: 'solo' } })
    expect(council?.chairs).toHaveLength(1)
  })
})
