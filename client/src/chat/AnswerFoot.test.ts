import { expect, test } from 'vitest'
import { facts } from './AnswerFoot'
import { EMPTY, lastAnswer, reduce } from './conversation'

test('the foot of an answer names model, tokens, seconds and time to first token', () => {
  const talk = [
    { type: 'asked', key: 'q', parent: null, question: 'q', model: 'small', at: 0 } as const,
    {
      type: 'received',
      events: [
        { type: 'delta', text: 'Hi', thinking: '' },
        { type: 'usage', input: 3, output: 1 },
      ],
      at: 240,
    } as const,
    { type: 'ended', state: 'stopped', at: 1500 } as const,
  ].reduce(reduce, EMPTY)
  const answer = lastAnswer(talk)
  expect(answer && facts(answer)).toEqual([
    'stopped',
    'small',
    '1 token',
    '1.5\u00a0s',
    'first token after 240\u00a0ms',
  ])
  const cloud = { provider: 'far', model: 'large', form: 'whole' as const, unrestored: [] }
  expect(answer && facts({ ...answer, cloud })).not.toContain('small')
})
