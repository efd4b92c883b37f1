import { describe, expect, test } from 'vitest'
import type { ChatEvent } from '../api/chat'
import { Problem } from '../api/errors'
import { type Action, EMPTY, isRunning, messagesFor, reduce } from './conversation'

const run = (...actions: Action[]) => actions.reduce(reduce, EMPTY)
const asked = (id: number, question: string): Action => ({
  type: 'asked',
  id,
  question,
  model: 'm',
  at: 1000,
})
const text = (value: string, at = 1500): Action => ({
  type: 'received',
  events: [{ type: 'delta', text: value, thinking: '' }],
  at,
})
const received = (...events: ChatEvent[]): Action => ({ type: 'received', events, at: 2000 })
const done: Action = { type: 'ended', state: 'complete', at: 3000 }
const last = (conversation: ReturnType<typeof run>) => conversation.exchanges.at(-1)?.answer

describe('a conversation', () => {
  test('waits after a question and streams from the first token on', () => {
    expect(last(run(asked(1, 'q')))?.state).toBe('waiting')
    const streaming = last(run(asked(1, 'q'), text('He'), text('llo', 2000)))
    expect(streaming).toMatchObject({ state: 'streaming', text: 'Hello', firstTokenMs: 500 })
  })

  test('knows its place in the queue until the first token', () => {
    const told = (ahead: number, waitSeconds: number | null, at: number): Action => ({
      type: 'received',
      events: [{ type: 'queue', ahead, waitSeconds }],
      at,
    })
    expect(last(run(asked(1, 'q')))?.turn).toBeNull()
    const waiting = last(run(asked(1, 'q'), told(2, 14, 2000), told(2, 14, 3000)))
    expect(waiting).toMatchObject({
      state: 'waiting',
      turn: { ahead: 2, dueAt: 16_000, toldAt: 3000 },
    })
    expect(last(run(asked(1, 'q'), told(2, 14, 2000), text('Hi')))?.state).toBe('streaming')
  })

  test('says why it pauses until it goes on, and remembers how often and how long', () => {
    const told = (...events: Parameters<typeof received>) =>
      run(asked(1, 'q'), text('Half'), received(...events))
    const why = 'another member is being served'
    expect(last(told({ type: 'paused', why }))).toMatchObject({
      state: 'streaming',
      text: 'Half',
      paused: why,
    })
    const onward = told({ type: 'paused', why }, { type: 'resumed', pauses: 2, pausedMs: 1840 })
    expect(last(onward)).toMatchObject({ paused: null, pauses: { count: 2, ms: 1840 } })
    const grown = told({ type: 'paused', why }, { type: 'delta', text: ' done', thinking: '' })
    expect(last(grown)).toMatchObject({ paused: null, text: 'Half done' })
    expect(last(reduce(onward, { type: 'retried', model: 'm', at: 9 }))).toMatchObject({
      pauses: { count: 0, ms: 0 },
    })
  })

  test('keeps tokens, times and the length limit of a complete answer', () => {
    const ended = run(
      asked(1, 'q'),
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
    expect(last(ended)).toMatchObject({
      state: 'complete',
      totalMs: 2000,
      tokens: { input: 4, output: 2 },
      cutShort: true,
    })
    expect(isRunning(ended)).toBe(false)
  })

  test('keeps the text so far when it is stopped or fails', () => {
    const stopped = run(asked(1, 'q'), text('Half'), { type: 'ended', state: 'stopped', at: 2000 })
    expect(last(stopped)).toMatchObject({ state: 'stopped', text: 'Half' })
    const problem = new Problem('Broken.')
    const failed = run(asked(1, 'q'), text('Half'), { type: 'failed', problem, at: 2000 })
    expect(last(failed)).toMatchObject({ state: 'failed', text: 'Half', problem })
  })

  test('starts the last answer afresh when it is asked for again', () => {
    const again = run(asked(1, 'q'), text('Old'), done, { type: 'retried', model: 'n', at: 5000 })
    expect(last(again)).toMatchObject({ state: 'waiting', text: '', model: 'n', startedAt: 5000 })
    expect(again.exchanges).toHaveLength(1)
  })

  test('leaves earlier exchanges untouched while the last one grows', () => {
    const before = run(asked(1, 'a'), text('A'), done, asked(2, 'b'))
    const after = reduce(before, text('B'))
    expect(after.exchanges[0]).toBe(before.exchanges[0])
    expect(after.exchanges[1]).not.toBe(before.exchanges[1])
  })

  test('tells the model what was said, without exchanges that brought no text', () => {
    const failed: Action = { type: 'failed', problem: new Problem('No.'), at: 2000 }
    const talk = run(asked(1, 'a'), text('A'), done, asked(2, 'b'), failed, asked(3, 'c'))
    expect(messagesFor(talk)).toEqual([
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'A' },
      { role: 'user', content: 'c' },
    ])
  })

  test('ignores late events after it was cleared', () => {
    expect(run(asked(1, 'q'), { type: 'cleared' }, text('late'))).toEqual(EMPTY)
  })
})
