import { expect, test } from 'vitest'
import { changeOf, type Draft, draftOf, EMPTY, mistakesOf, newModel, specOf } from './provider'
import type { Provider } from './wire'

const provider: Provider = {
  name: 'acme',
  kind: 'openai',
  url: 'https://api.example.com/v1',
  models: [
    {
      name: 'big-1',
      stands_in_for: ['*'],
      input_micros_per_million: 2_500_000,
      output_micros_per_million: 10_000_001,
      output_tokens_max: 4096,
      context_tokens: null,
      leaves_out: [],
    },
  ],
  is_enabled: true,
  has_key: true,
  is_resting: false,
  problem: null,
}

test('a provider that is not changed is sent as it was, without its key', () => {
  expect(changeOf(draftOf(provider), provider)).toEqual({ models: provider.models })
  const moved = { ...draftOf(provider), url: 'https://b.example.com/v1', apiKey: ' k ' }
  expect(changeOf(moved, provider)).toMatchObject({ url: 'https://b.example.com/v1', api_key: 'k' })
})

test('prices are millionths, to the last digit', () => {
  const model = { ...newModel(), name: 'm', input: '0,1', output: '0.000001' }
  const draft: Draft = { ...EMPTY, name: 'a', url: 'u', apiKey: 'k', models: [model] }
  expect(mistakesOf(draft, true)).toEqual({})
  expect(specOf(draft).models[0]).toMatchObject({
    input_micros_per_million: 100_000,
    output_micros_per_million: 1,
  })
})

test('what is missing or no number is told at its field', () => {
  const model = { ...newModel(), input: 'much', outputMax: '0', context: '-1' }
  expect(Object.keys(mistakesOf({ ...EMPTY, name: 'a b', models: [model] }, true))).toEqual([
    'name',
    'url',
    'api_key',
    'models.0.name',
    'models.0.input',
    'models.0.output',
    'models.0.outputMax',
    'models.0.context',
  ])
})
