import { MantineProvider } from '@mantine/core'
import { fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import { expect, test, vi } from 'vitest'
import { ChatContext, useChat } from '../chat/ChatContext'
import { ExchangeView } from '../chat/ExchangeView'
import { ChatStore } from '../chat/store'
import { json, LiveBody, refusal, serve } from '../test/server'
import { CouncilVoice } from './CouncilVoice'

type Told = Record<string, unknown>

const FEEDBACK = 'POST /api/councils/c1/feedback'
const seats = ['A', 'B', 'C'].map((label) => ({ label, model: `model-${label}`, engine: 'e' }))
const allocated: Told = {
  type: 'allocated',
  id: 'c1',
  strategy: 'vote',
  wanted: 5,
  size: 3,
  reason: '3 of 5: another member would slow everybody below 15 tokens a second.',
  steps: [],
  members: seats.map((seat, index) => ({ ...seat, is_leader: index === 0, sample: 0 })),
  chair: null,
}
const member = (label: string, state: string, more: Told = {}): Told => ({
  type: 'member',
  label,
  role: 'member',
  state,
  ...more,
})
const text = (label: string, words: string): Told => ({ type: 'text', label, text: words })
const verdict: Told = {
  type: 'verdict',
  method: 'vote',
  agreement: 2 / 3,
  opinions: [
    { answer: '42', labels: ['A', 'C'] },
    { answer: '41', labels: ['B'] },
  ],
  winner: 'A',
  by: null,
  reason: 'Two of three say 42.',
}
const answers = ['A', 'B', 'C'].flatMap((label) => [
  member(label, 'answering'),
  text(label, `I am **${label}**`),
  member(label, 'done', { usage: { completion_tokens: 4 }, total_ms: 700 }),
])

let body: LiveBody

function Conversation() {
  const { store, conversation } = useChat()
  const exchange = conversation.exchanges.at(-1)
  return (
    <>
      {exchange && <ExchangeView exchange={exchange} onRetry={() => store.retry('council')} />}
      <CouncilVoice answer={exchange?.reply?.answer ?? null} />
    </>
  )
}

/** Asks a council and shows it, with the wire under the test's control. */
async function ask(routes: Parameters<typeof serve>[0] = {}) {
  const calls = serve({
    'POST /v1/chat/completions': ({ signal }) => {
      body = new LiveBody()
      return body.response(signal)
    },
    ...routes,
  })
  const store = new ChatStore()
  store.keep(true)
  render(
    <MantineProvider>
      <ChatContext value={store}>
        <Conversation />
      </ChatContext>
    </MantineProvider>,
  )
  store.ask('What is 6 × 7?', 'council')
  await screen.findByTestId('waiting')
  return { store, calls }
}

function tell(...events: Told[]) {
  for (const council of events) {
    body.data({ choices: [{ delta: {} }], wirthforge: { council } })
  }
}

async function finished(routes?: Parameters<typeof serve>[0]) {
  const asked = await ask(routes)
  tell(allocated, ...answers)
  body.text('It is **42**.')
  tell(verdict)
  body.finish()
  await screen.findByTestId('answer-meta')
  return asked
}

const cards = () => screen.queryAllByTestId('member')
const card = (label: string) => screen.getByRole('article', { name: new RegExp(`^${label},`) })
const open = () => fireEvent.click(screen.getByRole('button', { name: /^Council, 3 of 5/ }))

test('while it runs, every member stands there with its model, its state and why', async () => {
  await ask()
  tell(
    allocated,
    member('A', 'answering'),
    text('A', 'I am **A**'),
    member('B', 'revoked', { reason: 'Somebody light waits.' }),
    member('C', 'failed', { reason: 'The engine is away.' }),
  )
  await waitFor(() => expect(cards().map(({ dataset }) => dataset.state)).toHaveLength(3))
  await waitFor(() => expect(card('C').dataset.state).toBe('failed'))
  expect(screen.getByTestId('council-size').textContent).toBe(
    '3 of 5: another member would slow everybody below 15 tokens a second.',
  )
  expect(card('A').textContent).toMatch(/model-A.*leads.*answering/)
  expect(within(card('A')).getByText('A', { selector: 'strong' })).toBeTruthy()
  expect(card('B').textContent).toMatch(/taken back for somebody who waits.*Somebody light waits\./)
  expect(card('C').textContent).toMatch(/failed.*The engine is away\./)
  expect(screen.queryByRole('button', { name: 'This one is better' })).toBeNull()
})

test('what members say is not shown once more as thinking', async () => {
  await ask()
  body.data({ choices: [{ delta: { reasoning_content: '[A · model-A]\n' } }] })
  await screen.findByText('Thinking…')
  body.data({
    choices: [{ delta: { reasoning_content: 'Hello' } }],
    wirthforge: { council: text('A', 'Hello') },
  })
  await waitFor(() => expect(screen.getByTestId('member-text').textContent).toBe('Hello'))
  expect(screen.queryByText('Thinking…')).toBeNull()
})

test('an answer that a second chair begins again forgets what the first one wrote', async () => {
  await ask()
  tell(allocated)
  body.text('Half an ans')
  await waitFor(() => expect(screen.getByTestId('answer').textContent).toBe('Half an ans'))
  body.data({
    choices: [{ delta: { content: 'A whole' } }],
    wirthforge: { council: { type: 'content', text: 'A whole', is_restart: true } },
  })
  body.text(' one.')
  await waitFor(() => expect(screen.getByTestId('answer').textContent).toBe('A whole one.'))
})

test('once it is done it folds into one line that opens again', async () => {
  await finished()
  expect(cards()).toHaveLength(0)
  const line = screen.getByRole('button', { name: /^Council, 3 of 5/ })
  expect(line.getAttribute('aria-expanded')).toBe('false')
  expect(line.textContent).toContain('A model-A · B model-B · C model-C')
  open()
  expect(line.getAttribute('aria-expanded')).toBe('true')
  expect(cards()).toHaveLength(3)
  expect(card('B').textContent).toMatch(/4 tokens · 700.ms/)
})

test('the verdict shows agreement, and each opinion with those who hold it', async () => {
  await finished()
  expect(screen.getByRole('meter', { name: 'Agreement' })).toHaveProperty('value', 2 / 3)
  const opinions = screen.getAllByTestId('opinion')
  expect(opinions.map(({ textContent }) => textContent)).toEqual(['AC42', 'B41'])
  expect(within(opinions[1] as HTMLElement).getByRole('img', { name: 'B, model-B' })).toBeTruthy()
  const said = screen.getByTestId('verdict').textContent
  expect(said).toMatch(/^Two of three say 42\.Final answer: A, model-AAgreement 67.%/)
})

test('one voice has no agreement to show', async () => {
  await ask()
  tell({ ...allocated, members: seats.slice(0, 1) }, member('A', 'done'))
  body.text('42')
  tell({ ...verdict, opinions: [{ answer: '42', labels: ['A'] }], agreement: 1 })
  await screen.findByTestId('verdict')
  expect(screen.queryByRole('meter')).toBeNull()
})

test('a council that is stopped stays open, and nobody in it is still at work', async () => {
  const { store } = await ask()
  tell(allocated, member('A', 'answering'), text('A', 'Half'))
  await screen.findByText('Half')
  store.stop()
  await screen.findByTestId('answer-meta')
  expect(cards().map(({ dataset }) => dataset.state)).toEqual(['unfinished', 'unasked', 'unasked'])
  expect(screen.queryByRole('button', { name: 'Good answer' })).toBeNull()
})

test('a council of which nobody answers shows the problem and who failed', async () => {
  await ask()
  tell(allocated, ...['A', 'B', 'C'].map((label) => member(label, 'failed', { reason: 'Gone.' })))
  body.data({ error: { message: 'No member has answered.' } })
  body.close()
  expect((await screen.findByRole('alert')).textContent).toContain('No member has answered.')
  expect(cards()).toHaveLength(3)
})

test('a member that did better can be told, which is then shown', async () => {
  const { calls } = await finished({ [FEEDBACK]: () => json({}) })
  open()
  fireEvent.click(within(card('B')).getByRole('button', { name: 'This one is better' }))
  const chosen = await screen.findByRole('button', { name: 'Your choice' })
  expect(chosen.getAttribute('aria-pressed')).toBe('true')
  expect(card('B').contains(chosen)).toBe(true)
  expect(calls.at(-1)?.body).toEqual({ pick: 'B' })
  expect(screen.getByText('Noted.')).toBeTruthy()
})

test('only an answer that is whole can be better, and only than another one', async () => {
  await ask()
  tell(allocated, ...answers.slice(0, 3), member('B', 'late'), text('B', 'Half'))
  body.text('42')
  body.finish()
  await screen.findByTestId('answer-meta')
  open()
  expect(screen.queryByRole('button', { name: 'This one is better' })).toBeNull()
})

test('a thumb is sent and shown, and a later word takes its place', async () => {
  const { calls } = await finished({ [FEEDBACK]: () => json({}) })
  const thumb = (name: string) => screen.getByRole('button', { name })
  fireEvent.click(thumb('Good answer'))
  await waitFor(() => expect(thumb('Good answer').getAttribute('aria-pressed')).toBe('true'))
  fireEvent.click(thumb('Bad answer'))
  await waitFor(() => expect(thumb('Bad answer').getAttribute('aria-pressed')).toBe('true'))
  expect(thumb('Good answer').getAttribute('aria-pressed')).toBe('false')
  expect(calls.slice(1).map(({ body: sent }) => sent)).toEqual([{ thumb: 'up' }, { thumb: 'down' }])
})

test('a word that was not taken says why', async () => {
  await finished({ [FEEDBACK]: () => refusal(404, 'There is no such council of yours.') })
  fireEvent.click(screen.getByRole('button', { name: 'Good answer' }))
  expect((await screen.findByRole('alert')).textContent).toBe('There is no such council of yours.')
  expect(screen.queryByText('Noted.')).toBeNull()
})

test('regenerating tells that the answer was not wanted, unless more was said of it', async () => {
  const { calls } = await finished({ [FEEDBACK]: () => json({}) })
  fireEvent.click(screen.getByRole('button', { name: 'Regenerate' }))
  await screen.findByTestId('waiting')
  expect(calls.map(({ path, body: sent }) => [path, sent]).slice(1, 2)).toEqual([
    ['/api/councils/c1/feedback', { regenerated: true }],
  ])
  tell(allocated, ...answers)
  body.text('42')
  body.finish()
  fireEvent.click(await screen.findByRole('button', { name: 'Good answer' }))
  await screen.findByText('Noted.')
  const before = calls.length
  fireEvent.click(screen.getByRole('button', { name: 'Regenerate' }))
  await screen.findByTestId('waiting')
  expect(calls.slice(before).map(({ path }) => path)).toEqual(['/v1/chat/completions'])
})

test('who is at what is spoken for those who do not see it', async () => {
  await ask()
  tell(allocated)
  await waitFor(() =>
    expect(screen.getByTestId('council-voice').textContent).toBe(
      'Council, 3 of 5. A waiting. B waiting. C waiting',
    ),
  )
  expect(screen.getByTestId('council-voice').getAttribute('role')).toBe('status')
})

test('where there is no room the members are tabs', async () => {
  vi.spyOn(window, 'matchMedia').mockImplementation((media) =>
    Object.assign(new EventTarget(), {
      media,
      matches: media.includes('max-width'),
      onchange: null,
      addListener() {},
      removeListener() {},
    }),
  )
  await ask()
  tell(allocated, member('B', 'failed', { reason: 'Gone.' }), text('A', 'Hello'))
  const failed = await screen.findByRole('tab', { name: 'B, model-B, failed' })
  expect(cards()).toHaveLength(1)
  fireEvent.click(failed)
  expect(cards()).toHaveLength(1)
  expect(card('B').textContent).toContain('Gone.')
})
