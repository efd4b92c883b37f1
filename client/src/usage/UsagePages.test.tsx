import { fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import { beforeEach, describe, expect, test } from 'vitest'
import { App } from '../App'
import type { ModelPrice, UsageGroup, UsageReport } from '../api/client'
import { json, refusal, serve } from '../test/server'
import { dayOf } from './days'

const today = dayOf(new Date())
const at = '2030-01-01T00:00:00Z'
let role: 'admin' | 'member'
let calls: ReturnType<typeof serve>
let prices: ModelPrice[]

const used = (more: Partial<UsageGroup> = {}): UsageGroup => ({
  requests: 2,
  input_tokens: 1000,
  output_tokens: 234,
  run_ms: 9000,
  gpu_ms: 5_400_000,
  energy_mj: 44_640_000,
  cost: '0.0031',
  unpriced_requests: 0,
  unmetered_requests: 0,
  ...more,
})

function reportOf(query: URLSearchParams): UsageReport {
  const by = query.get('by') ?? ''
  const rows: Record<string, UsageGroup[]> = {
    day: [used({ day: today })],
    model: [used({ model: 'small' }), used({ model: 'large', gpu_ms: 6_000_000 })],
    key: [used({ key_id: null, key: null }), used({ key_id: 'k', key: null })],
    user: [used({ user: 'ann', user_id: 'a' }), used({ user: null, user_id: 'b' })],
    council: [used({ council: null }), used({ council: 'council:3' })],
  }
  const [from, to] = [query.get('from') ?? '', query.get('to') ?? '']
  const total = used({ unpriced_requests: 1, energy_mj: null, unmetered_requests: 2 })
  return { from, to, tz: query.get('tz') ?? '', by: [by], rows: rows[by] ?? [], total }
}

const price = (model: string, more: Partial<ModelPrice> = {}): ModelPrice => ({
  model,
  input_per_million: '0.1',
  output_per_million: '0.4',
  per_gpu_second: null,
  per_kwh: '0.32',
  since: at,
  until: null,
  set_by: null,
  ...more,
})

let putAnswer: () => Response

beforeEach(() => {
  role = 'member'
  prices = [price('*'), price('small', { until: at })]
  putAnswer = () => json(price('meta/llama'))
  calls = serve({
    'GET /api/session': () => json({ principal: { id: 'p', name: 'ada', role } }),
    'GET /v1/models': () => json({ data: [{ id: 'small' }] }),
    'GET /api/usage': () => json([]),
    'GET /api/usage/report': ({ query }) => json(reportOf(query)),
    'GET /api/admin/usage': ({ query }) => json(reportOf(query)),
    'GET /api/admin/prices': () => json(prices),
    'PUT /api/admin/prices/meta%2Fllama': () => putAnswer(),
    'DELETE /api/admin/prices/*': () => {
      prices = []
      return json(null, 204)
    },
  })
})

async function open(path: string) {
  window.history.replaceState(null, '', path)
  render(<App />)
  await screen.findByRole('heading', { level: 1 })
}

const rows = async () =>
  (await screen.findAllByTestId('report-row')).map((row) =>
    row.textContent?.replaceAll('\u00a0', ' '),
  )

describe('a report of one’s own', () => {
  test('adds up, shows a bar for each day, and says what is not in the sums', async () => {
    await open('/usage')
    const totals = await screen.findByTestId('usage-totals')
    expect(totals.textContent).toContain('Input tokens1,000')
    expect(totals.textContent).toContain('Energy–')
    expect((await rows())[0]).toBe('large21,0002341.7 h12.4 Wh0.0031')
    const chart = screen.getByTestId('day-chart')
    expect(chart.getAttribute('aria-label')).toMatch(/at most 1,234 tokens a day$/)
    expect(chart.children).toHaveLength(30)
    fireEvent.click(screen.getByRole('radio', { name: 'Cost' }))
    expect(chart.getAttribute('aria-label')).toMatch(/^Cost by day.*at most 0.0031 a day$/)
    expect(
      screen.getByText('1 of the requests is not in the cost: the models had no price then.'),
    ).toBeTruthy()
    expect(screen.getByText('No energy is told: no device measured it then.')).toBeTruthy()
    expect(screen.queryByRole('link', { name: 'Everybody' })).toBeNull()
  })

  test('is made by what is chosen, of the days that are chosen, and is to be had as a file', async () => {
    await open('/usage')
    await rows()
    fireEvent.change(screen.getByLabelText('By'), { target: { value: 'key' } })
    await screen.findByText('in the browser')
    expect(screen.getByText('a key that is gone')).toBeTruthy()
    fireEvent.change(screen.getByLabelText('Days'), { target: { value: 'own' } })
    fireEvent.change(screen.getByLabelText('First day'), { target: { value: '2026-11-03' } })
    fireEvent.change(screen.getByLabelText('Last day'), { target: { value: '2026-11-01' } })
    expect((await screen.findByRole('alert')).textContent).toMatch(/comes after/)
    fireEvent.change(screen.getByLabelText('Last day'), { target: { value: '2026-11-05' } })
    await waitFor(() => expect(calls.at(-1)?.query.get('to')).toBe('2026-11-05'))
    expect(calls.some(({ query }) => query.get('to') === '2026-11-01')).toBe(false)
    const link = screen.getByRole('link', { name: 'Download as CSV' }).getAttribute('href')
    const file = new URL(link ?? '', window.location.origin)
    expect(file.pathname).toBe('/api/usage/export')
    expect(Object.fromEntries(file.searchParams)).toMatchObject({
      by: 'key',
      from: '2026-11-03',
      to: '2026-11-05',
      format: 'csv',
    })
  })

  test('says why it cannot be had', async () => {
    serve({
      'GET /api/session': () => json({ principal: { id: 'p', name: 'ada', role } }),
      'GET /v1/models': () => json({ data: [] }),
      'GET /api/usage': () => json([]),
      'GET /api/usage/report': () =>
        refusal(429, 'Eight wait for a report.', { 'retry-after': '5' }),
    })
    await open('/usage')
    expect((await screen.findByRole('alert')).textContent).toMatch(/Eight wait.*Try again in 5/)
  })
})

describe('an admin', () => {
  beforeEach(() => {
    role = 'admin'
  })

  test('sees what everybody used, by person', async () => {
    await open('/usage')
    fireEvent.click(await screen.findByRole('link', { name: 'Everybody' }))
    await screen.findByRole('heading', { name: 'Usage of everybody' })
    expect((await rows()).map((row) => row?.replace(/\d.*/, ''))).toEqual([
      'ann',
      'somebody who is gone',
    ])
    expect(screen.getByRole('link', { name: 'Set prices' }).getAttribute('href')).toBe(
      '/usage/prices',
    )
  })

  test('sets a price, and is told at the field what the server refuses', async () => {
    await open('/usage/prices')
    expect((await screen.findByTestId('price-row')).textContent).toContain(
      'Every other model0.1 read · 0.4 written · 0.32 kWh',
    )
    expect(screen.getByTestId('old-price').textContent).toContain('small')
    fireEvent.click(screen.getByRole('button', { name: 'Set a price' }))
    const form = within(screen.getByRole('form', { name: 'Set a price' }))
    const type = (label: string | RegExp, value: string) =>
      fireEvent.change(form.getByLabelText(label), { target: { value } })
    type('Model', 'meta/llama')
    type('A million tokens read', '0,10')
    fireEvent.click(form.getByRole('button', { name: 'Save' }))
    expect(await form.findByText('Give an amount; 0 is one.')).toBeTruthy()
    type('A million tokens written', '0.4')
    const message = 'since lies before the price that the model has.'
    putAnswer = () => json({ error: { message, code: 'invalid_request', param: 'since' } }, 400)
    fireEvent.click(form.getByRole('button', { name: 'Save' }))
    expect(await form.findByText(message)).toBeTruthy()
    putAnswer = () => json(price('meta/llama'))
    fireEvent.click(form.getByRole('button', { name: 'Save' }))
    await screen.findByRole('button', { name: 'Set a price' })
    expect(calls.findLast(({ method }) => method === 'PUT')?.body).toEqual({
      input_per_million: '0.10',
      output_per_million: '0.4',
      per_gpu_second: null,
      per_kwh: null,
      since: null,
    })
  })

  test('ends a price only after a question', async () => {
    await open('/usage/prices')
    fireEvent.click(await screen.findByRole('button', { name: 'Actions for Every other model' }))
    fireEvent.click(await screen.findByRole('menuitem', { name: 'End it…' }))
    fireEvent.click(await screen.findByRole('button', { name: 'End it' }))
    expect(await screen.findByText(/No model has a price yet/)).toBeTruthy()
  })
})

test('members find neither everybody’s usage nor prices', async () => {
  await open('/usage/prices')
  expect(await screen.findByRole('heading', { name: 'There is no such page' })).toBeTruthy()
})
