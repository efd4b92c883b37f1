import { fireEvent, render, screen, waitFor } from '@testing-library/react'
import { beforeEach, describe, expect, test } from 'vitest'
import { App } from '../App'
import { standing } from '../test/cloud'
import { message, Shelf, stored } from '../test/conversations'
import { json, refusal, serve } from '../test/server'
import type { Consent } from './wire'

let shelf: Shelf
let calls: ReturnType<typeof serve>
let consents: Consent[]
let routes: Parameters<typeof serve>[0]

const body = JSON.stringify({
  model: 'big-1',
  messages: [{ role: 'user', content: 'Write to ann@example.org' }],
})
const asks = {
  token: 't1',
  provider: 'acme',
  model: 'big-1',
  expires_at: new Date(Date.now() + 600_000).toISOString(),
  wait_s: 90,
  body_bytes: body.length,
  findings: [],
}
const email = { kind: 'personal', type: 'EMAIL', what: 'an e-mail address', where: 'messages.0' }

beforeEach(() => {
  shelf = new Shelf()
  consents = [
    {
      token: 't1',
      request_id: 'r1',
      conversation_id: 'c1',
      provider: 'acme',
      model: 'big-1',
      asked_at: new Date().toISOString(),
      expires_at: asks.expires_at,
      given: false,
      body_bytes: body.length,
      body,
      findings: [{ ...email, text: 'ann@example.org' }],
      sentence: 'It would wait about 90 s here.',
      reserved_micros: 21_000,
    },
  ]
  routes = {
    'GET /api/session': () => json({ principal: { id: 'p1', name: 'ada', role: 'member' } }),
    'GET /v1/models': () => json({ data: [{ id: 'small' }] }),
    'GET /api/cloud': () => json(standing()),
    'GET /api/cloud/consents': () => json(consents),
    'POST /api/cloud/consents/t1': () => json(null, 204),
    ...shelf.routes,
  }
})

async function waits() {
  calls = serve(routes)
  render(<App />)
  await screen.findByRole('option', { name: 'small' })
  const field = await screen.findByRole('textbox', { name: 'Message' })
  fireEvent.change(field, { target: { value: 'Hi' } })
  fireEvent.click(screen.getByRole('button', { name: 'Send' }))
  await screen.findByRole('button', { name: 'Stop' })
  shelf.body.raw(': queue ahead=2 wait_s=90\n\n')
  shelf.body.data({ wirthforge: { cloud: { asks } } })
  await screen.findByTestId('cloud-ask')
}

const answers = () =>
  calls.filter(({ path }) => path === '/api/cloud/consents/t1').map((call) => call.body)
const card = () => screen.queryByTestId('cloud-ask')
const press = (name: string) => {
  const all = screen.getAllByRole('button', { name })
  fireEvent.click(all.find((one) => card()?.contains(one)) ?? (all[0] as HTMLElement))
}

describe('a request that may leave', () => {
  test('shows to whom, what exactly, what was found in it, and why', async () => {
    await waits()
    const text = await screen.findByTestId('cloud-body')
    expect(text.textContent).toContain('Write to ann@example.org')
    expect(text.querySelector('mark')?.textContent).toBe('ann@example.org')
    expect(card()?.textContent).toContain('to big-1 at acme')
    expect(card()?.textContent).toContain('an e-mail address')
    expect(card()?.textContent).toContain('It would wait about 90 s here.')
    expect(card()?.textContent).toContain('for at most 0.021.')
    fireEvent.click(screen.getByRole('radio', { name: 'To the letter' }))
    expect(screen.getByTestId('cloud-body').textContent).toBe(body)
    expect(screen.getByTestId('cloud-voice').textContent).toMatch(/may leave the box, to acme/)
    expect(screen.getByTestId('waiting').textContent).toMatch(/^2 ahead of you/)
  })

  test('leaves after a yes, and the answer is marked, with what could not be put back', async () => {
    await waits()
    await screen.findByTestId('cloud-body')
    press('Send')
    await waitFor(() => expect(card()).toBeNull())
    expect(answers()).toEqual([{ answer: 'yes' }])
    const about = { provider: 'acme', model: 'big-1', form: 'pseudonymised' }
    shelf.body.data({ wirthforge: { cloud: about }, choices: [{ delta: { content: 'Dear X' } }] })
    shelf.body.data({ wirthforge: { cloud: { unrestored: ['X'] } }, choices: [] })
    shelf.body.finish()
    expect((await screen.findByTestId('cloud-mark')).textContent).toMatch(
      /answered by big-1 at acme, asked with other words/,
    )
    expect(screen.getByTestId('unrestored').querySelector('mark')?.textContent).toBe('X')
  })

  test('stays after a no, also by Escape in the card, which stops nothing', async () => {
    await waits()
    const text = await screen.findByTestId('cloud-body')
    text.focus()
    fireEvent.keyDown(text, { key: 'Escape' })
    await waitFor(() => expect(card()).toBeNull())
    expect(answers()).toEqual([{ answer: 'no' }])
    expect(screen.getByRole('button', { name: 'Stop' })).toBeTruthy()
  })

  test('is asked no more when the box answers first, or the question is taken back', async () => {
    await waits()
    shelf.body.data({ wirthforge: { cloud: { asks: null } } })
    await waitFor(() => expect(card()).toBeNull())
    shelf.body.data({ wirthforge: { cloud: { asks: { ...asks, token: 't2' } } } })
    await screen.findByTestId('cloud-ask')
    shelf.body.text('Here')
    await waitFor(() => expect(card()).toBeNull())
    shelf.body.finish()
    await screen.findByTestId('answer-meta')
    expect(screen.queryByTestId('cloud-mark')).toBeNull()
  })

  test('cannot be sent unseen, and says what the server says', async () => {
    consents = consents.map((one) => ({ ...one, body: null }))
    routes['POST /api/cloud/consents/t1'] = () => refusal(409, 'The question has expired.')
    await waits()
    await screen.findByText(/cannot be shown here/)
    const send = screen.getByRole<HTMLButtonElement>('button', { name: 'Send' })
    expect(send.disabled).toBe(true)
    press('Keep waiting here')
    expect((await screen.findByRole('alert')).textContent).toBe('The question has expired.')
  })
})

test('a stored answer of a cloud is marked again', async () => {
  const cloud = { provider: 'acme', model: 'big-1', form: 'whole', unrestored: [] }
  shelf.conversation = stored([message('q1', null), message('a1', 'q1', { cloud })])
  serve(routes)
  window.history.replaceState(null, '', '/chat/c1')
  render(<App />)
  expect((await screen.findByTestId('cloud-mark')).textContent).toMatch(/big-1 at acme$/)
})

describe('the switch of a conversation', () => {
  const menu = () => screen.findByRole('button', { name: /^Cloud for this conversation/ })

  test('is told to the server, and a new one begins with it', async () => {
    calls = serve(routes)
    render(<App />)
    fireEvent.click(await menu())
    fireEvent.click(await screen.findByRole('menuitemradio', { name: /^Private/ }))
    await screen.findByRole('button', { name: 'Cloud for this conversation: Private' })
    const field = await screen.findByRole('textbox', { name: 'Message', hidden: true })
    fireEvent.change(field, { target: { value: 'Hi' } })
    fireEvent.click(screen.getByRole('button', { name: 'Send', hidden: true }))
    await waitFor(() =>
      expect(
        calls.find(({ method, path }) => method === 'POST' && path === '/api/conversations')?.body,
      ).toEqual({
        model: 'small',
        cloud: 'private',
      }),
    )
  })

  test('changes one that is stored, and stays as it was where that fails', async () => {
    shelf.conversation = stored([message('q1', null), message('a1', 'q1')], { cloud: 'private' })
    routes['PATCH /api/conversations/c1'] = () => refusal(503, 'Postgres is away.')
    calls = serve(routes)
    window.history.replaceState(null, '', '/chat/c1')
    render(<App />)
    await screen.findByRole('button', { name: 'Cloud for this conversation: Private' })
    fireEvent.click(await menu())
    fireEvent.click(await screen.findByRole('menuitemradio', { name: /^As usual/ }))
    expect(await screen.findByText('Postgres is away.')).toBeTruthy()
    expect(calls.find(({ method }) => method === 'PATCH')?.body).toEqual({ cloud: null })
    expect((await menu()).getAttribute('aria-label')).toMatch(/Private$/)
  })

  test('is not there where nothing leaves anyway, and says private in a temporary chat', async () => {
    routes['GET /api/cloud'] = () => json(standing({ is_on: false }))
    serve(routes)
    const { unmount } = render(<App />)
    await screen.findByRole('option', { name: 'small' })
    expect(screen.queryByRole('button', { name: /^Cloud for/ })).toBeNull()
    unmount()
    routes['GET /api/cloud'] = () => json(standing())
    serve(routes)
    render(<App />)
    fireEvent.click(await screen.findByRole('switch', { name: 'Temporary chat' }))
    expect((await menu()).getAttribute('aria-label')).toMatch(/Private$/)
    expect((await menu()).hasAttribute('disabled')).toBe(true)
  })
})
