import { expect, test } from 'vitest'
import { curlSnippet, pythonSnippet } from './snippets'

const call = { base: 'http://box:8000/v1', key: 'wf_secret', model: "bo's model" }

test('the curl call survives a quote in the model name', () => {
  expect(curlSnippet(call)).toContain(`{"model":"bo'\\''s model"`)
  expect(curlSnippet(call)).toContain('http://box:8000/v1/chat/completions')
})

test('the Python program names the address, the key and the model', () => {
  const program = pythonSnippet(call)
  for (const part of Object.values(call)) expect(program).toContain(JSON.stringify(part))
})
