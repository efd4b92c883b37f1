import { describe, expect, test } from 'vitest'
import type { ChatEvent } from '../api/chat'
import { Problem } from '../api/errors'
import {
  type Action,
  EMPTY,
  endOf,
  isRunning,
  lastAnswer,
  messagesFor,
  reduce,
} from './conversation'

const run = (...actions: Action[]) => actions.reduce(reduce, EMPTY)
const asked = (key: string, parent: string | null = null): Action => ({
  type: 'asked',
  key,
  parent,
  question: key,
  model: 'm',
  at: 1000,
})
const retried = (question: string, key: string): Action => ({
  type: 'retried',
  question,
  key,
  model: 'n',
  at: 5000,
})
const text = (value: string, at = 1500): Action => ({
  type: 'received',
  events: [{ type: 'delta', text: value, thinking: '' }],
  at,
})
const received = (...events: ChatEvent[]): Action => ({ type: 'received', events, at: 2000 })
const done: Action = { type: 'ended', state: 'complete', at: 3000 }

describe('a conversation', () => {
  test('waits after a question and streams from the first token on', () => {
    expect(lastAnswer(run(asked('q')))?.state).toBe('waiting')
    const streaming = lastAnswer(run(asked('q'), text('He'), text('llo', 2000)))
    expect(streaming).toMatchObject({ state: 'streaming', text: 'Hello', firstTokenMs: 500 })
  })

  test('knows its place in the queue until the first token', () => {
    const told = (ahead: number, waitSeconds: number | null, at: number): Action => ({
      type: 'received',
      events: [{ type: 'queue', ahead, waitSeconds }],
      at,
    })
    expect(lastAnswer(run(asked('q')))?.turn).toBeNull()
    const waiting = lastAnswer(run(asked('q'), told(2, 14, 2000), told(2, 14, 3000)))
    expect(waiting).toMatchObject({
      state: 'waiting',
      turn: { ahead: 2, dueAt: 16_000, toldAt: 3000 },
    })
    expect(lastAnswer(run(asked('q'), told(2, 14, 2000), text('Hi')))?.state).toBe('streaming')
  })

  test('says why it pauses until it goes on, and remembers how often and how long', () => {
    const told = (...events: Parameters<typeof received>) =>
      run(asked('q'), text('Half'), received(...events))
    const why = 'another member is being served'
    expect(lastAnswer(told({ type: 'paused', why }))).toMatchObject({
      state: 'streaming',
      text: 'Half',
      paused: why,
    })
    const onward = told({ type: 'paused', why }, { type: 'resumed', pauses: 2, pausedMs: 1840 })
    expect(lastAnswer(onward)).toMatchObject({ paused: null, pauses: { count: 2, ms: 1840 } })
    const grown = told({ type: 'paused', why }, { type: 'delta', text: ' done', thinking: '' })
    expect(lastAnswer(grown)).toMatchObject({ paused: null, text: 'Half done' })
    expect(lastAnswer(reduce(onward, retried('q', 'r')))).toMatchObject({
      pauses: { count: 0, ms: 0 },
    })
  })

  test('keeps tokens, times and the length limit of a complete answer', () => {
    const ended = run(
      asked('q'),
      text('Hello'),
      {
        type: 'received',
        events: [
          { type: 'finish', reason: 'length' },
          { type: 'usage', input: 4, output: 2 },
        ],
        at: 2900,
      },
      done,
    )
    expect(lastAnswer(ended)).toMatchObject({
      state: 'complete',
      totalMs: 2000,
      tokens: { input: 4, output: 2 },
      cutShort: true,
    })
    expect(isRunning(ended)).toBe(false)
  })

  test('keeps the text so far when it is stopped or fails', () => {
    const stopped = run(asked('q'), text('Half'), { type: 'ended', state: 'stopped', at: 2000 })
    expect(lastAnswer(stopped)).toMatchObject({ state: 'stopped', text: 'Half' })
    const problem = new Problem('Broken.')
    const failed = run(asked('q'), text('Half'), { type: 'failed', problem, at: 2000 })
    expect(lastAnswer(failed)).toMatchObject({ state: 'failed', text: 'Half', problem })
  })

  test('starts the last answer afresh when it is asked for again', () => {
    const again = run(asked('q'), text('Old'), done, retried('q', 'r'))
    expect(lastAnswer(again)).toMatchObject({
      state: 'waiting',
      text: '',
      model: 'n',
      startedAt: 5000,
    })
    expect(again.exchanges).toHaveLength(1)
  })

  test('leaves earlier exchanges untouched while the last one grows', () => {
    const before = run(asked('a'), text('A'), done, asked('b', 'a answer'))
    const after = reduce(before, text('B'))
    expect(after.exchanges[0]).toBe(before.exchanges[0])
    expect(after.exchanges[1]).not.toBe(before.exchanges[1])
  })

  test('tells the model what was said, without exchanges that brought no text', () => {
    const failed: Action = { type: 'failed', problem: new Problem('No.'), at: 2000 }
    const talk = run(
      asked('a'),
      text('A'),
      done,
      asked('b', 'a answer'),
      failed,
      asked('c', 'b answer'),
    )
    expect(messagesFor(talk)).toEqual([
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'A' },
      { role: 'user', content: 'c' },
    ])
  })

  test('ignores late events after another one was opened', () => {
    const opened: Action = { type: 'opened', serial: 0, id: null }
    expect(run(asked('q'), opened, text('late'))).toEqual(EMPTY)
  })

  test('keeps an answer that is made anew beside the one before, and leads back to it', () => {
    const two = run(asked('q'), text('One'), done, retried('q', 'r'), text('Two'), done)
    expect(two.exchanges[0]?.replies).toEqual(['q answer', 'r answer'])
    expect(lastAnswer(two)?.text).toBe('Two')
    const back = reduce(two, { type: 'switched', key: 'q answer' })
    expect(lastAnswer(back)?.text).toBe('One')
  })

  test('forgets a try that brought nothing and is not stored', () => {
    const failed: Action = { type: 'failed', problem: new Problem('No.'), at: 2000 }
    const again = run(asked('q'), failed, retried('q', 'r'))
    expect(again.exchanges[0]?.replies).toEqual(['r answer'])
  })

  test('shows of an edited question the branch that was newest there', () => {
    const talk = run(
      asked('a'),
      text('A'),
      done,
      asked('b', 'a answer'),
      text('B'),
      done,
      asked('edited'),
      text('E'),
      done,
    )
    expect(talk.exchanges.map(({ question }) => question?.text)).toEqual(['edited'])
    expect(talk.exchanges[0]?.questions).toEqual(['a', 'edited'])
    const back = reduce(talk, { type: 'switched', key: 'a' })
    expect(back.exchanges.map(({ question }) => question?.text)).toEqual(['a', 'b'])
    expect(endOf(back)).toBeNull()
  })

  test('knows its rows once the server has named them, and goes on from the last of these', () => {
    const named: ChatEvent = { type: 'stored', question: 'q1', answer: 'a1', stopped: false }
    const talk = run(asked('q'), received(named), text('Hi'), done, asked('b', 'q answer'))
    expect(talk.messages.map(({ id }) => id)).toEqual(['q1', 'a1', null, null])
    expect(endOf(talk)).toBe('q answer')
  })
})
