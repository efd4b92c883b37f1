import { expect, test } from 'vitest'
import { message, stored } from '../test/conversations'
import { type Action, type Conversation, EMPTY, lastAnswer, reduce } from './conversation'

const told = (conversation: Conversation, ...[messages, more]: Parameters<typeof stored>) =>
  reduce(conversation, { type: 'told', stored: stored(messages, more), followed: null, at: 0 })
const opened = reduce(EMPTY, { type: 'opened', serial: 1, id: 'c1' })
const texts = ({ exchanges }: Conversation) => exchanges.map(({ question }) => question?.text)

test('the branch that was looked at last is the one that is shown', () => {
  const all = [message('1q', null), message('2a', '1q'), message('3q', null), message('4a', '3q')]
  expect(texts(told(opened, all, { leaf_id: '2a' }))).toEqual(['Text of 1q'])
  expect(texts(told(opened, all, { leaf_id: null }))).toEqual(['Text of 3q'])
})

test('earlier messages come before those that are there', () => {
  const late = told(opened, [message('3q', '2a'), message('4a', '3q')], { more: true })
  expect(late.hasEarlier).toBe(true)
  const all = told(late, [message('1q', null), message('2a', '1q')], { leaf_id: '4a' })
  expect(texts(all)).toEqual(['Text of 1q', 'Text of 3q'])
  expect(all.hasEarlier).toBe(false)
})

test('what was imported may begin with an answer, end with a question, and go in a ring', () => {
  const odd = [message('0a', null), message('0s', '0a', { role: 'system' }), message('1q', '0s')]
  const { exchanges } = told(opened, odd)
  expect(exchanges.map(({ question, reply }) => [question?.id, reply?.id])).toEqual([
    [undefined, '0a'],
    ['1q', undefined],
  ])
  const ring = told(opened, [message('1q', '2a'), message('2a', '1q')])
  expect(ring.exchanges).toHaveLength(1)
})

test('rows that are read again keep the key under which they were asked', () => {
  const asked: Action[] = [
    { type: 'asked', key: 'k', parent: null, question: 'Why?', model: 'm', at: 0 },
    {
      type: 'received',
      events: [{ type: 'stored', question: '1q', answer: '2a', stopped: false }],
      at: 1,
    },
  ]
  const talk = asked.reduce(reduce, opened)
  const again = told(talk, [message('1q', null), message('2a', '1q', { state: 'stopped' })])
  expect(again.messages.map(({ key }) => key)).toEqual(['k', 'k answer'])
  expect(lastAnswer(again)).toMatchObject({ state: 'stopped', text: 'Text of 2a' })
})

test('an answer that broke off says why', () => {
  const failed = message('2a', '1q', { state: 'failed', problem: 'The engine died.' })
  const answer = lastAnswer(told(opened, [message('1q', null), failed]))
  expect(answer).toMatchObject({ state: 'failed', problem: { message: 'The engine died.' } })
})

test('a council is drawn from what was kept: who sat there, what they said, and the verdict', () => {
  const report = (label: string, role: string, state: string) => ({
    label,
    model: 'small',
    engine: 'e',
    role,
    state,
    reason: state === 'failed' ? 'Out of memory.' : null,
    total_ms: 700,
  })
  const council = {
    type: 'summary',
    id: 'run',
    strategy: 'self-k',
    wanted: 2,
    size: 2,
    reason: '2 of 2.',
    steps: [],
    chair: null,
    members: [
      report('A', 'member', 'done'),
      report('B', 'member', 'failed'),
      report('A', 'debate', 'done'),
      report('A', 'debate', 'done'),
      report('C', 'chair', 'done'),
    ],
    verdict: { method: 'chair', agreement: 1, opinions: [], winner: null, by: 'C', reason: 'So.' },
  }
  const said = (label: string, role: string, content: string) => ({
    label,
    model: 'small',
    role,
    content,
    state: 'done',
    output_tokens: 4,
  })
  const members = [
    said('A', 'member', 'First'),
    said('A', 'debate', 'Second'),
    said('A', 'debate', 'Third'),
  ]
  const talk = told(opened, [message('1q', null), message('2a', '1q', { council, members })])
  const drawn = lastAnswer(talk)?.council
  expect(drawn).toMatchObject({ id: 'run', size: 2, verdict: { by: 'C', reason: 'So.' } })
  expect(drawn?.members.map(({ label, sample }) => [label, sample])).toEqual([
    ['A', 0],
    ['B', 1],
  ])
  const [first, second] = drawn?.members ?? []
  expect(first?.parts.map(({ text, state, totalMs }) => [text, state, totalMs])).toEqual([
    ['First', 'done', 700],
    ['Second', 'done', 700],
    ['Third', 'done', 700],
  ])
  expect(second?.parts).toMatchObject([{ state: 'failed', reason: 'Out of memory.' }])
  expect(drawn?.chairs).toMatchObject([{ label: 'C', state: 'done' }])
})
