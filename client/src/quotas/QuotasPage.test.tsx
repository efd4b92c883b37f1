import { fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import { beforeEach, describe, expect, test } from 'vitest'
import { App } from '../App'
import type { QuotaRule, QuotaRules } from '../api/client'
import { json, serve } from '../test/server'
import { LIMITS, type LimitName } from './limits'

const ann = { id: 'a', name: 'ann', role: 'member' as const }
const at = '2030-01-01T00:00:00Z'
let annRule: QuotaRule
let putAnswer: (rule: QuotaRule) => Response
let calls: ReturnType<typeof serve>

const rules = (): QuotaRules => ({
  built_in: {
    ...Object.fromEntries(LIMITS.map(({ name }) => [name, null])),
    weight: 100,
    queue_length_max: 100,
  },
  default: { tokens_per_day: 500_000 },
  roles: [],
  users: Object.keys(annRule).length === 0 ? [] : [{ user: ann, rule: annRule, updated_at: at }],
})

const standing = (warnings: string[] = []) => ({
  scope: 'user ann',
  user: ann,
  rule: annRule,
  limits: Object.fromEntries(
    LIMITS.map(({ name }) => {
      const own = annRule[name]
      if (own !== undefined) return [name, { value: own, rule: 'user ann' }]
      const value = rules().default[name] ?? rules().built_in[name] ?? null
      return [name, { value, rule: name === 'tokens_per_day' ? 'default' : 'built-in' }]
    }),
  ),
  warnings,
})

beforeEach(() => {
  annRule = { weight: 200 }
  putAnswer = (rule) => {
    annRule = rule
    return json(standing(['No engine serves ‘gone’ now.']))
  }
  calls = serve({
    'GET /api/session': () => json({ principal: { id: 'r', name: 'root', role: 'admin' } }),
    'GET /v1/models': () => json({ data: [{ id: 'tiny' }] }),
    'GET /api/admin/users': () => json([{ ...ann, disabled: false, created_at: at }]),
    'GET /api/admin/quotas': () => json(rules()),
    'GET /api/admin/quotas/users/a': () => json(standing()),
    'PUT /api/admin/quotas/users/a': ({ body }) => putAnswer(body as QuotaRule),
    'DELETE /api/admin/quotas/users/a': () => {
      annRule = {}
      return json(null, 204)
    },
    'GET /api/admin/audit': () => json([]),
  })
})

const field = (name: LimitName) => within(screen.getByTestId(`limit-${name}`))
const puts = () => calls.filter(({ method }) => method === 'PUT').map(({ body }) => body)

async function openAnn() {
  render(<App />)
  fireEvent.click(await screen.findByRole('link', { name: 'Quotas' }))
  fireEvent.click(await screen.findByRole('link', { name: /^ann/ }))
  await screen.findByRole('heading', { name: 'Quota of ann' })
  await screen.findByRole('button', { name: 'Change' })
}

describe('the quotas', () => {
  test('list everybody, the roles and each person with their rule', async () => {
    window.history.replaceState(null, '', '/quotas')
    render(<App />)
    const texts = (await screen.findAllByTestId('rule-row')).map((row) => row.textContent)
    expect(texts.map((text) => text?.replaceAll('\u00a0', ' '))).toEqual([
      'Everybodytokens per day 500,000',
      'Membersno rule',
      'Adminsno rule',
      'annweight 200 %',
    ])
    expect(await screen.findByText('No rule was changed yet.')).toBeTruthy()
  })

  test('tell what is in force for a person, and which rule it comes from', async () => {
    await openAnn()
    const row = (name: LimitName) =>
      screen.getByTestId(`in-force-${name}`).textContent?.replaceAll('\u00a0', ' ')
    expect(row('weight')).toBe('Weight200 %the rule of ann')
    expect(row('tokens_per_day')).toBe('Tokens per day500,000everybody’s rule')
    expect(row('queue_length_max')).toBe('Waiting at a time100built in')
    expect(row('models')).toBe('Modelsallbuilt in')
  })

  test('are sent whole: a number, unlimited as null, and nothing for what is inherited', async () => {
    await openAnn()
    fireEvent.click(screen.getByRole('button', { name: 'Change' }))
    const day = field('tokens_per_day')
    expect(day.getByText('Inherits 500,000 (everybody’s rule)')).toBeTruthy()
    expect(field('weight').queryByRole('radio', { name: 'Unlimited' })).toBeNull()
    fireEvent.click(field('weight').getByRole('radio', { name: 'Inherit' }))
    fireEvent.click(day.getByRole('radio', { name: 'Unlimited' }))
    fireEvent.click(field('in_flight_max').getByRole('radio', { name: 'Limit' }))
    fireEvent.change(screen.getByRole('textbox', { name: 'Running at a time' }), {
      target: { value: '1,000' },
    })
    fireEvent.click(screen.getByRole('button', { name: 'Save' }))
    expect(await screen.findByText('No engine serves ‘gone’ now.')).toBeTruthy()
    expect(puts()).toEqual([{ tokens_per_day: null, in_flight_max: 1000 }])
    await waitFor(() =>
      expect(screen.getByTestId('in-force-tokens_per_day').textContent).toContain('unlimited'),
    )
  })

  test('show what the server refuses at its field, and nothing is sent that is no number', async () => {
    await openAnn()
    fireEvent.click(screen.getByRole('button', { name: 'Change' }))
    const weight = screen.getByRole('textbox', { name: 'Weight' })
    fireEvent.change(weight, { target: { value: 'a lot' } })
    fireEvent.click(screen.getByRole('button', { name: 'Save' }))
    expect(await field('weight').findByText('Give a whole number.')).toBeTruthy()
    expect(puts()).toEqual([])
    const message = 'weight is a whole number from 1 to 10000; 100 is a normal share.'
    putAnswer = () => json({ error: { message, code: 'invalid_request', param: 'weight' } }, 400)
    fireEvent.change(weight, { target: { value: '0' } })
    fireEvent.click(screen.getByRole('button', { name: 'Save' }))
    expect(await field('weight').findByText(message)).toBeTruthy()
    await waitFor(() => expect(document.activeElement).toBe(weight))
  })

  test('are cleared only after a question', async () => {
    await openAnn()
    fireEvent.click(screen.getByRole('button', { name: 'Clear the rule…' }))
    expect(await screen.findByText('Clear the rule of ann?')).toBeTruthy()
    fireEvent.click(screen.getByRole('button', { name: 'Clear' }))
    await waitFor(() =>
      expect(screen.queryByRole('button', { name: 'Clear the rule…' })).toBeNull(),
    )
    expect(annRule).toEqual({})
  })

  test('of somebody who is not there is a page that is not there', async () => {
    window.history.replaceState(null, '', '/quotas/roles/guest')
    render(<App />)
    expect(await screen.findByRole('heading', { name: 'There is no such page' })).toBeTruthy()
  })
})
