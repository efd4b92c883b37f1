import { MantineProvider } from '@mantine/core'
import { render, screen } from '@testing-library/react'
import { expect, test } from 'vitest'
import { type Action, EMPTY, reduce } from './conversation'
import { ExchangeView } from './ExchangeView'

const asked: Action = {
  type: 'asked',
  key: 'q',
  parent: null,
  question: 'Why?',
  model: 'm',
  at: 1000,
}
const received = (...events: Extract<Action, { type: 'received' }>['events']): Action => ({
  type: 'received',
  events,
  at: 2000,
})
const half = received({ type: 'delta', text: 'Half', thinking: '' })
const paused = received({ type: 'paused', why: 'another member is being served' })
const resumed = received({ type: 'resumed', pauses: 1, pausedMs: 1840 })

function view(...actions: Action[]) {
  const exchange = actions.reduce(reduce, EMPTY).exchanges[0]
  if (exchange === undefined) throw new Error('Nobody asked.')
  render(
    <MantineProvider>
      <ExchangeView exchange={exchange} onRetry={null} />
    </MantineProvider>,
  )
}

test('an answer that pauses says why, below what it has said so far', () => {
  view(asked, half, paused)
  expect(screen.getByTestId('answer').textContent).toContain('Half')
  expect(screen.getByTestId('paused').textContent).toBe('Paused: another member is being served')
})

test('a pause without a reason is one all the same', () => {
  view(asked, half, received({ type: 'paused', why: '' }))
  expect(screen.getByTestId('paused').textContent).toBe('Paused')
})

test('an answer that goes on says nothing, and its foot how long it was paused', () => {
  view(asked, half, paused, resumed, { type: 'ended', state: 'complete', at: 4000 })
  expect(screen.queryByTestId('paused')).toBeNull()
  expect(screen.getByTestId('answer-meta').textContent).toMatch(/paused 1 time for 1\.8.s/)
})

test('an answer that is stopped while it pauses no longer pauses', () => {
  view(asked, half, paused, { type: 'ended', state: 'stopped', at: 4000 })
  expect(screen.queryByTestId('paused')).toBeNull()
})
