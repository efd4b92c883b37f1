import { MantineProvider } from '@mantine/core'
import { act, render, screen } from '@testing-library/react'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Problem } from '../api/errors'
import { told } from '../ui/turn'
import { AnswerProblem } from './AnswerProblem'
import { WaitingLine } from './WaitingLine'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

const pass = (ms: number) => act(() => vi.advanceTimersByTime(ms))
const line = () => screen.getByTestId('waiting').textContent?.replaceAll('\u00a0', ' ')
const button = () => screen.getByRole('button')

test('the estimate is counted down, and goes over to the first token when the queue is silent', () => {
  const now = performance.now()
  const turn = told(null, 0, 3000, now)
  render(<WaitingLine since={now - 5000} turn={turn} />)
  expect(line()).toBe('You are next, about 3 s')
  pass(1000)
  expect(line()).toBe('You are next, about 2 s')
  pass(2000)
  expect(line()).toBe('You are next, about 1 s')
  pass(1000)
  expect(line()).toMatch(/^Waiting for the first token… \d s$/)
})

test('without a queue it tells how long it has been', () => {
  render(<WaitingLine since={performance.now() - 2000} turn={null} />)
  expect(line()).toBe('Waiting for the first token… 2 s')
})

test('the retry button counts down what the server asked for, but not for hours', () => {
  const show = (seconds: number) => (
    <MantineProvider>
      <AnswerProblem problem={new Problem('Full.', 503, seconds)} onRetry={() => undefined} />
    </MantineProvider>
  )
  const { rerender } = render(show(2))
  expect(button().textContent).toMatch(/^Try again in 2\ss$/)
  expect(button()).toHaveProperty('disabled', true)
  pass(2000)
  expect(button().textContent).toBe('Try again')
  expect(button()).toHaveProperty('disabled', false)
  rerender(show(40_000))
  expect(button()).toHaveProperty('disabled', false)
})
