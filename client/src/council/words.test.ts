import { describe, expect, test } from 'vitest'
import { type Council, heard } from './council'
import { withSize } from './names'
import {
  authorWords,
  chairWords,
  foldedWords,
  fullSizeWords,
  memberName,
  reasonWords,
  sizeWords,
  sortedOpinions,
  spokenWords,
  stateWords,
  stepWords,
} from './words'

const seat = (label: string, model: string, sample = 0) => ({ label, model, sample })
const member = (label: string, state: string, more = {}) => ({
  type: 'member',
  label,
  state,
  ...more,
})

function council(allocation: object, ...events: Record<string, unknown>[]): Council {
  const grown = [{ type: 'allocated', ...allocation }, ...events].reduce<Council | null>(
    heard,
    null,
  )
  if (grown === null) throw new Error('Nothing was heard.')
  return grown
}

describe('the size', () => {
  const two = [seat('A', 'm'), seat('B', 'n')]

  test('is told as a part of what was asked for', () => {
    expect(sizeWords(council({ size: 3, wanted: 5, members: two }))).toBe('3 of 5')
    expect(sizeWords(council({ size: 3, members: two }))).toBe('3 members')
    expect(sizeWords(council({ size: 1, members: [seat('A', 'm')] }))).toBe('1 member')
  })

  test('counts who was called in beyond it, but no judges', () => {
    const joined = { type: 'joined', label: 'C', model: 'o' }
    const judge = member('J', 'answering', { role: 'judge' })
    const told = council({ size: 2, wanted: 2, members: two }, joined, judge)
    expect(fullSizeWords(told)).toBe('2 of 2 and 1 called in later')
    expect(sizeWords(told)).toBe('2 of 2')
    expect(fullSizeWords(council({ size: 3, wanted: 5, members: two }))).toBe('3 of 5')
  })

  test('has a reason, without numbers that were told already', () => {
    expect(reasonWords(council({ reason: '3 of 5: another is waiting.' }))).toBe(
      'another is waiting.',
    )
    expect(reasonWords(council({ reason: 'You asked for so many.' }))).toBe(
      'You asked for so many.',
    )
    expect(reasonWords(council({}))).toBeNull()
  })

  test('says what was done to fit the load, also where the step is new', () => {
    expect(stepWords(council({ steps: ['smaller_council', 'half_a_loaf'] }))).toBe(
      'To fit the load: a smaller council, half a loaf.',
    )
    expect(stepWords(council({}))).toBeNull()
  })

  test('makes a name to ask for, where a size can be chosen', () => {
    expect(withSize('council', '3')).toBe('council:3')
    expect(withSize('council:self', '4')).toBe('council:self:4')
    expect(withSize('council', '')).toBe('council')
    expect(withSize('council', '99')).toBe('council')
    expect(withSize('council:lawyers', '3')).toBe('council:lawyers')
  })
})

describe('a member', () => {
  test('is told apart from another sample of its model', () => {
    const { members } = council({ members: [seat('A', 'm'), seat('B', 'm', 1), seat('C', 'n')] })
    expect(members.map((one) => memberName(one, members))).toEqual([
      'm, sample 1',
      'm, sample 2',
      'n',
    ])
  })

  test('has a word for each state, and others once all is over', () => {
    const words = (running: boolean, ...events: Record<string, unknown>[]) => {
      const [first] = council({ members: [seat('A', 'm')] }, ...events).members
      return first && stateWords(first, running)
    }
    const [answering, revoked] = [member('A', 'answering'), member('A', 'revoked')]
    const ranking = member('A', 'answering', { role: 'rank' })
    expect([words(true), words(false)]).toEqual(['waiting', 'not asked'])
    expect([words(true, answering), words(false, answering)]).toEqual(['answering', 'not finished'])
    expect(words(true, ranking)).toBe('ranking the answers')
    expect(words(true, revoked)).toBe('taken back for somebody who waits')
    expect(words(false, revoked)).toBe(words(true, revoked))
  })

  test('that did not answer comes first in the one line', () => {
    const members = [seat('A', 'm'), seat('B', 'n'), seat('C', 'o')]
    const line = foldedWords(
      council({ members }, member('A', 'done'), member('B', 'failed'), member('C', 'dropped')),
    )
    expect(line).toEqual(['B failed', 'C dropped', 'A m', 'B n', 'C o'])
  })
})

describe('the end', () => {
  const chair = (label: string, state: string, reason?: string) =>
    member(label, state, { role: 'chair', model: `m${label}`, reason })
  const verdict = (winner: string | null, by: string | null) =>
    ({ method: 'vote', agreement: 1, opinions: [], winner, by, reason: null }) as const

  test('names whose answer it is, or which chair wrote it', () => {
    const told = council({ members: [seat('A', 'm')] }, chair('A', 'done'))
    expect(authorWords(told, verdict('A', null))).toBe('A, m')
    expect(authorWords(told, verdict(null, 'A'))).toBe('the chair, mA')
    expect(authorWords(told, verdict(null, null))).toBeNull()
  })

  test('names a chair that failed, and who writes instead', () => {
    const told = council({}, chair('A', 'failed', 'It is gone.'), chair('B', 'answering'))
    const words = (running: boolean) => told.chairs.map((one) => chairWords(one, running))
    expect(words(true)).toEqual([
      'The chair, mA, failed: It is gone.',
      'The chair, mB, writes the answer.',
    ])
    expect(words(false)).toEqual(['The chair, mA, failed: It is gone.', null])
  })

  test('puts the winning opinion first and leaves no minority out', () => {
    const opinions = [
      { answer: '1', labels: ['A'] },
      { answer: '2', labels: ['B'] },
      { answer: '3', labels: ['C', 'D'] },
    ]
    const sorted = sortedOpinions({ ...verdict('B', null), opinions })
    expect(sorted.map(({ answer }) => answer)).toEqual(['2', '3', '1'])
  })

  test('is spoken as who is at what', () => {
    const members = [seat('A', 'm'), seat('B', 'n')]
    const told = council({ size: 2, wanted: 2, members }, member('A', 'done'), member('B', 'late'))
    expect(spokenWords(told)).toBe('Council, 2 of 2. A done. B too late')
  })
})
