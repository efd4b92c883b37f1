import { fireEvent, render, screen, waitFor } from '@testing-library/react'
import { beforeEach, describe, expect, test } from 'vitest'
import { App } from './App'
import type { Role } from './api/client'
import { Shelf } from './test/conversations'
import { json, refusal, serve } from './test/server'

let principal: { id: string; name: string; role: Role } | null
let shelf: Shelf

const models = { object: 'list', data: [{ id: 'small' }, { id: 'large' }] }
let routes: Parameters<typeof serve>[0]

beforeEach(() => {
  shelf = new Shelf()
  routes = {
    'GET /api/session': () => json({ principal }),
    'GET /v1/models': () => json(models),
    ...shelf.routes,
  }
  principal = { id: 'p1', name: 'ada', role: 'member' }
})

const paths = (calls: ReturnType<typeof serve>) => calls.map(({ path }) => path)
const type = (element: HTMLElement, value: string) =>
  fireEvent.change(element, { target: { value } })

async function ask(question: string) {
  type(await screen.findByRole('textbox', { name: 'Message' }), question)
  fireEvent.click(screen.getByRole('button', { name: 'Send' }))
  await screen.findByRole('button', { name: 'Stop' })
}

describe('logging in', () => {
  test('shows why it failed and then lands on the page that was asked for', async () => {
    principal = null
    window.history.replaceState(null, '', '/usage')
    let right = false
    serve({
      ...routes,
      'GET /api/usage': () => json([]),
      'POST /api/login': () => {
        if (!right) return refusal(401, 'The name or the password is wrong.')
        principal = { id: 'p1', name: 'ada', role: 'member' }
        return json(principal)
      },
    })
    render(<App />)
    type(await screen.findByLabelText('Name'), 'ada')
    type(screen.getByLabelText('Password'), 'wrong')
    fireEvent.click(screen.getByRole('button', { name: 'Log in' }))
    expect((await screen.findByRole('alert')).textContent).toBe(
      'The name or the password is wrong.',
    )
    right = true
    fireEvent.click(screen.getByRole('button', { name: 'Log in' }))
    expect(await screen.findByText('You have not asked anything yet.')).toBeTruthy()
    expect(window.location.pathname).toBe('/usage')
  })

  test('is asked for again when a session has ended', async () => {
    serve({
      ...routes,
      'POST /api/conversations': () => {
        principal = null
        return refusal(401, 'Log in first.')
      },
    })
    render(<App />)
    type(await screen.findByRole('textbox', { name: 'Message' }), 'Hello?')
    fireEvent.click(await screen.findByRole('button', { name: 'Send' }))
    expect(await screen.findByRole('heading', { name: 'Log in' })).toBeTruthy()
  })
})

describe('the pages', () => {
  test('of admins are neither linked nor shown to members', async () => {
    window.history.replaceState(null, '', '/people')
    serve(routes)
    render(<App />)
    expect(await screen.findByRole('heading', { name: 'There is no such page' })).toBeTruthy()
    expect(screen.queryByRole('link', { name: 'People' })).toBeNull()
  })

  test('of quotas are for admins only, too', async () => {
    window.history.replaceState(null, '', '/quotas/default')
    serve(routes)
    render(<App />)
    expect(await screen.findByRole('heading', { name: 'There is no such page' })).toBeTruthy()
    expect(screen.queryByRole('link', { name: 'Quotas' })).toBeNull()
    expect(screen.getByRole('link', { name: 'Sharing' })).toBeTruthy()
  })

  test('say what to do when a set-up link no longer works', async () => {
    window.history.replaceState(null, '', '/setup#used')
    serve({ ...routes, 'POST /api/setup/check': () => refusal(404, 'Used.') })
    render(<App />)
    expect(await screen.findByText('wirthforge user reset-password NAME')).toBeTruthy()
  })
})

describe('the chat', () => {
  test('streams an answer from the chosen model and then tells what it took', async () => {
    const calls = serve(routes)
    render(<App />)
    await screen.findByRole('option', { name: 'large' })
    type(screen.getByLabelText('Model'), 'large')
    await ask('What is a council?')
    shelf.body.text('Several **models**')
    await waitFor(() => expect(screen.getByTestId('answer').textContent).toBe('Several models'))
    shelf.body.finish(2)
    expect((await screen.findByTestId('answer-meta')).textContent).toMatch(/^large · 2 tokens · /)
    const asked = calls.find(({ path }) => path === '/api/conversations/c1/messages')
    expect(asked?.body).toEqual({
      parent_id: null,
      content: 'What is a council?',
      model: 'large',
      options: { wirthforge: { cloud_events: true } },
    })
  })

  test('says whose turn it is while a question waits', async () => {
    serve(routes)
    render(<App />)
    await ask('Am I next?')
    shelf.body.raw(': queue ahead=2 wait_s=14\n\n')
    await waitFor(() =>
      expect(screen.getByTestId('waiting').textContent).toMatch(/^2 ahead of you, about 1\d\ss$/),
    )
    const voice = screen.getByTestId('waiting-voice')
    await waitFor(() => expect(voice.textContent).toMatch(/^2 ahead of you/))
    shelf.body.raw(': queue ahead=0\n\n')
    await waitFor(() => expect(screen.getByTestId('waiting').textContent).toBe('You are next'))
    shelf.body.text('Yes')
    await waitFor(() => expect(screen.queryByTestId('waiting')).toBeNull())
    expect(voice.textContent).toBe('')
  })

  test('stops with Escape and keeps the text so far', async () => {
    const calls = serve(routes)
    render(<App />)
    await ask('Go on for ever')
    shelf.body.text('Half an answer')
    await screen.findByText('Half an answer')
    fireEvent.keyDown(window, { key: 'Escape' })
    await waitFor(() => expect(paths(calls)).toContain('/api/conversations/c1/messages/a1/stop'))
    shelf.body.finish()
    expect((await screen.findByTestId('answer-meta')).textContent).toMatch(/^stopped/)
    expect(screen.getByTestId('answer').textContent).toBe('Half an answer')
  })

  test('shows an error under the text so far and tries again', async () => {
    serve(routes)
    render(<App />)
    await ask('Break')
    shelf.body.text('Half')
    shelf.body.data({ error: { message: 'The engine ran out of memory.' } })
    expect((await screen.findByRole('alert')).textContent).toContain('ran out of memory')
    expect(screen.getByTestId('answer').textContent).toBe('Half')
    shelf.answer = 'a2'
    fireEvent.click(screen.getByRole('button', { name: 'Try again' }))
    await screen.findByRole('button', { name: 'Stop' })
    shelf.body.text('Whole')
    shelf.body.finish()
    await screen.findByTestId('answer-meta')
    expect(screen.getByTestId('answer').textContent).toBe('Whole')
  })

  test('is still there after a look at another page', async () => {
    serve({ ...routes, 'GET /api/usage': () => json([]) })
    render(<App />)
    await ask('Hello?')
    fireEvent.click(screen.getByRole('link', { name: 'Usage' }))
    await screen.findByRole('heading', { name: 'Usage' })
    shelf.body.text('Answered meanwhile')
    shelf.body.finish()
    fireEvent.click(screen.getByRole('link', { name: 'Chat' }))
    expect((await screen.findByTestId('answer')).textContent).toBe('Answered meanwhile')
  })
})
