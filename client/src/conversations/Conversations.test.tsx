import { fireEvent, render, screen, waitFor } from '@testing-library/react'
import { beforeEach, describe, expect, test } from 'vitest'
import { App } from '../App'
import { message, row, Shelf, stored } from '../test/conversations'
import { json, refusal, serve } from '../test/server'

let shelf: Shelf
let routes: Parameters<typeof serve>[0]

beforeEach(() => {
  shelf = new Shelf()
  routes = {
    'GET /api/session': () => json({ principal: { id: 'p1', name: 'ada', role: 'member' } }),
    'GET /v1/models': () => json({ data: [{ id: 'small' }] }),
    ...shelf.routes,
  }
})

function visit(path: string) {
  window.history.replaceState(null, '', path)
  const calls = serve(routes)
  render(<App />)
  return calls
}

const type = (name: string, value: string) =>
  fireEvent.change(screen.getByRole('textbox', { name }), { target: { value } })
const press = (name: string) => fireEvent.click(screen.getByRole('button', { name }))
const answer = async () => (await screen.findByTestId('answer')).textContent
const rows = () => screen.getAllByTestId('conversation').map((each) => each.textContent)
const choose = async (title: string, item: string) => {
  fireEvent.click(await screen.findByRole('button', { name: `Actions for ${title}` }))
  fireEvent.click(await screen.findByRole('menuitem', { name: item }))
}

async function ask(question: string) {
  await screen.findByRole('option', { name: 'small' })
  type('Message', question)
  press('Send')
  await screen.findByRole('button', { name: 'Stop' })
}

describe('a stored conversation', () => {
  test('gets its address with its first question, and is in the list', async () => {
    visit('/')
    await screen.findByText('What you ask is kept here.')
    shelf.rows = [row('c1', { title: 'Why?', running: true })]
    await ask('Why?')
    await waitFor(() => expect(window.location.pathname).toBe('/chat/c1'))
    expect(await screen.findByRole('link', { name: /^Why\? ?answering$/ })).toBeTruthy()
    shelf.body.text('Because.')
    shelf.body.finish()
    await screen.findByTestId('answer-meta')
    expect(await answer()).toBe('Because.')
  })

  test('is there again at its address, with what its answer took', async () => {
    shelf.conversation = stored([message('q1', null), message('a1', 'q1')])
    visit('/chat/c1')
    expect(await answer()).toBe('Text of a1')
    expect(screen.getByTestId('question').textContent).toBe('Text of q1')
    expect(screen.getByTestId('answer-meta').textContent).toMatch(/^small · 5 tokens · 900.ms/)
  })

  test('whose answer is still written takes it up from its beginning', async () => {
    const half = { state: 'streaming', content: 'Half' } as const
    shelf.conversation = stored([message('q1', null), message('a1', 'q1', half)])
    visit('/chat/c1')
    await screen.findByRole('button', { name: 'Stop' })
    await waitFor(() => expect(screen.getByTestId('answer').textContent).toBe(''))
    shelf.body.text('Half and')
    shelf.body.text(' whole')
    await waitFor(() => expect(screen.getByTestId('answer').textContent).toBe('Half and whole'))
    shelf.conversation = stored([message('q1', null), message('a1', 'q1', { content: 'Whole.' })])
    shelf.body.finish()
    await screen.findByTestId('answer-meta')
    expect(await answer()).toBe('Whole.')
  })

  test('says why an answer broke off, and makes another one beside it', async () => {
    const broken = { state: 'interrupted', content: 'Half' } as const
    shelf.conversation = stored([message('q1', null), message('a1', 'q1', broken)])
    const calls = visit('/chat/c1')
    expect((await screen.findByRole('alert')).textContent).toContain('ended in the middle')
    shelf.answer = 'a2'
    press('Try again')
    await screen.findByRole('button', { name: 'Stop' })
    const again = '/api/conversations/c1/messages/q1/answers'
    expect(calls.some(({ path }) => path === again)).toBe(true)
    shelf.body.text('Whole')
    shelf.body.finish()
    expect((await screen.findByTestId('answer-branches')).textContent).toBe('2/2')
    press('Previous answer')
    expect(await answer()).toBe('Half')
    const patched = () => calls.find(({ method }) => method === 'PATCH')?.body
    await waitFor(() => expect(patched()).toEqual({ leaf_id: 'a1' }))
  })

  test('whose question is edited goes on in a branch, and the old one is still there', async () => {
    shelf.conversation = stored([message('q1', null), message('a1', 'q1')])
    const calls = visit('/chat/c1')
    await answer()
    press('Edit question')
    type('Question', 'In other words')
    Object.assign(shelf, { question: 'q2', answer: 'a2' })
    press('Ask')
    await screen.findByRole('button', { name: 'Stop' })
    const asked = calls.find(({ path }) => path === '/api/conversations/c1/messages')?.body
    expect(asked).toMatchObject({ parent_id: null, content: 'In other words' })
    expect(screen.getByTestId('question-branches').textContent).toBe('2/2')
    shelf.body.finish()
    await screen.findByTestId('answer-meta')
    press('Previous question')
    expect(screen.getByTestId('question').textContent).toBe('Text of q1')
  })

  test('that is not there says so, and keeps nothing from beginning another', async () => {
    visit('/chat/gone')
    expect(await screen.findByText('There is no such conversation')).toBeTruthy()
    fireEvent.click(screen.getByRole('link', { name: 'Begin a new one' }))
    expect(await screen.findByRole('textbox', { name: 'Message' })).toBeTruthy()
  })

  test('keeps what is typed in it until one comes back', async () => {
    shelf.rows = [row('c1')]
    shelf.conversation = stored([message('q1', null), message('a1', 'q1')])
    visit('/chat/c1')
    await answer()
    type('Message', 'Half a thought')
    press('New chat')
    expect(screen.getByRole('textbox', { name: 'Message' })).toHaveProperty('value', '')
    fireEvent.click(await screen.findByRole('link', { name: 'About c1' }))
    await answer()
    expect(screen.getByRole('textbox', { name: 'Message' })).toHaveProperty(
      'value',
      'Half a thought',
    )
  })
})

test('a question that does not reach the server stays, and is asked again', async () => {
  visit('/')
  let broken = true
  const begin = routes['POST /api/conversations']
  routes['POST /api/conversations'] = (call) => {
    if (broken) throw new TypeError('Failed to fetch')
    return begin?.(call) ?? refusal(500, 'No route.')
  }
  await screen.findByRole('option', { name: 'small' })
  type('Message', 'Why?')
  press('Send')
  expect((await screen.findByRole('alert')).textContent).toContain('cannot be reached')
  expect(screen.getByTestId('question').textContent).toBe('Why?')
  broken = false
  press('Try again')
  await screen.findByRole('button', { name: 'Stop' })
  expect(screen.getAllByTestId('question')).toHaveLength(1)
})

test('a temporary chat is not stored, and says so', async () => {
  const calls = visit('/')
  await screen.findByRole('option', { name: 'small' })
  fireEvent.click(screen.getByRole('switch', { name: 'Temporary chat' }))
  expect(screen.getByTestId('temporary').textContent).toContain('nothing of it is stored')
  type('Message', 'Why?')
  press('Send')
  await waitFor(() =>
    expect(calls.at(-1)).toMatchObject({ path: '/v1/chat/completions', method: 'POST' }),
  )
  expect(window.location.pathname).toBe('/')
  expect(screen.getByTestId('temporary').textContent).toMatch(/^Temporary chat: nothing/)
})

describe('the list', () => {
  test('has pinned ones on top, and the found words marked in a search', async () => {
    const now = new Date().toISOString()
    shelf.rows = [row('p', { pinned: true }), row('c1', { updated_at: now }), row('old')]
    const calls = visit('/')
    await screen.findByRole('heading', { name: 'Today' })
    const groups = screen.getAllByRole('heading', { level: 2 }).map((each) => each.textContent)
    expect(groups).toEqual(['Pinned', 'Today', 'Earlier'])
    shelf.rows = [row('c1', { excerpt: 'what a «council» is' })]
    type('Search conversations', ' council ')
    const found = await screen.findByText('council')
    expect(found.tagName).toBe('MARK')
    expect(calls.at(-1)?.query.get('search')).toBe('council')
    expect(screen.getByText('1 conversation found')).toBeTruthy()
  })

  test('renames in place with Enter, and not with Escape', async () => {
    shelf.rows = [row('c1')]
    const calls = visit('/')
    await choose('About c1', 'Rename')
    fireEvent.keyDown(screen.getByRole('textbox', { name: 'Title' }), { key: 'Escape' })
    expect(rows()).toEqual(['About c1'])
    await choose('About c1', 'Rename')
    type('Title', 'Councils')
    shelf.rows = [row('c1', { title: 'Councils' })]
    fireEvent.keyDown(screen.getByRole('textbox', { name: 'Title' }), { key: 'Enter' })
    expect(await screen.findByText('Councils')).toBeTruthy()
    const changes = calls.filter(({ method }) => method === 'PATCH')
    expect(changes.map(({ body }) => body)).toEqual([{ title: 'Councils' }])
  })

  test('a title in the making survives that its row comes into another group', async () => {
    shelf.rows = [row('c1')]
    const calls = visit('/')
    await screen.findByText('About c1')
    type('Search conversations', 'c')
    await screen.findByRole('heading', { name: 'Found' })
    await choose('About c1', 'Rename')
    type('Title', 'Councils')
    type('Search conversations', '')
    await screen.findByRole('heading', { name: 'Earlier' })
    fireEvent.keyDown(screen.getByRole('textbox', { name: 'Title' }), { key: 'Enter' })
    await waitFor(() => expect(calls.some(({ method }) => method === 'PATCH')).toBe(true))
    expect(calls.find(({ method }) => method === 'PATCH')?.body).toEqual({ title: 'Councils' })
  })

  test('deletes after asking; the open one gives way to a new chat', async () => {
    shelf.rows = [row('c1')]
    shelf.conversation = stored([message('q1', null), message('a1', 'q1')])
    routes['DELETE /api/conversations/c1'] = () => {
      shelf.rows = []
      return json(null, 204)
    }
    visit('/chat/c1')
    await answer()
    await choose('About c1', 'Delete…')
    fireEvent.click(await screen.findByRole('button', { name: 'Delete' }))
    await waitFor(() => expect(window.location.pathname).toBe('/'))
    expect(await screen.findByText('What you ask is kept here.')).toBeTruthy()
  })
})
