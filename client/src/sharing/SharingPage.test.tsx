import { fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import { beforeEach, describe, expect, test } from 'vitest'
import { App } from '../App'
import type { Share } from '../api/client'
import { json, serve } from '../test/server'
import { type FakeSocket, sockets } from '../test/socket'
import { shareSentence, weightSentence } from './words'

const idle: Share = {
  engines: [{ name: 'tiny', slots: 4, running: 0, waiting: 0 }],
  people: 0,
  weight: 100,
  share_percent: null,
  requests: [],
  budgets: [],
}

describe('the sentence', () => {
  const of = (people: number, share_percent: number | null) =>
    shareSentence({ ...idle, people, share_percent }).replaceAll('\u00a0', ' ')

  test('says how many people there are and what part is yours', () => {
    expect(of(0, null)).toBe('Nobody is using the box.')
    expect(of(1, 100)).toBe('You have the box to yourself.')
    expect(of(1, null)).toBe('One other person is using the box.')
    expect(of(2, null)).toBe('Two other people are using the box.')
    expect(of(2, 50)).toBe('Two people are using the box. Your share is a half.')
    expect(of(3, 66)).toBe('Three people are using the box. Your share is two thirds.')
    expect(of(12, 8)).toBe('12 people are using the box. Your share is 8 %.')
  })

  test('mentions a weight only where it is not the normal one', () => {
    const weighing = (weight: number) =>
      weightSentence({ ...idle, weight })?.replaceAll('\u00a0', ' ') ?? null
    expect(weighing(100)).toBeNull()
    expect(weighing(200)).toBe('Your weight is 200 %: twice a normal share.')
    expect(weighing(50)).toBe('Your weight is 50 % of a normal share.')
  })
})

describe('the sharing page', () => {
  let made: FakeSocket[]

  beforeEach(() => {
    made = sockets()
    serve({
      'GET /api/session': () => json({ principal: { id: 'p', name: 'ada', role: 'member' } }),
      'GET /v1/models': () => json({ data: [{ id: 'tiny' }] }),
      'GET /api/quota': () =>
        json({
          limits: {
            weight: { value: 100, rule: 'built-in' },
            tokens_per_day: { value: 1000, rule: 'default' },
            in_flight_max: { value: 2, rule: 'role member' },
            models: { value: null, rule: 'built-in' },
            council_size_max: { value: 3, rule: 'user ada' },
          },
        }),
    })
  })

  async function open() {
    render(<App />)
    fireEvent.click(await screen.findByRole('link', { name: 'Sharing' }))
    await screen.findByRole('heading', { name: 'Sharing' })
  }

  test('shows slots, own requests, budgets and limits as they are pushed', async () => {
    await open()
    const engine = { name: 'tiny', slots: 4, running: 3, waiting: 2 }
    const at = { model: 'tiny', engine: 'tiny' }
    made.at(-1)?.says({
      ...idle,
      engines: [engine],
      people: 2,
      share_percent: 50,
      requests: [
        { ...at, id: '1', state: 'running', ahead: null, wait_ms: null, output_tokens: 7 },
        { ...at, id: '2', state: 'queued', ahead: 2, wait_ms: 14_000, output_tokens: 0 },
      ],
      budgets: [{ name: 'tokens_per_day', limit: 1000, used: 1200, resets_in_ms: 7_200_000 }],
    })
    expect((await screen.findByTestId('share-sentence')).textContent).toMatch(/^Two people are/)
    expect(screen.getByTestId('engine').textContent).toContain('3 of 4 in use · 2 waiting')
    expect(screen.getByRole('img', { name: 'tiny: 3 of 4 slots in use, 1 by you' })).toBeTruthy()
    const [running, queued] = screen.getAllByTestId('own-request')
    expect(running?.textContent).toContain('Running, 7 tokens so far')
    expect(queued?.textContent).toMatch(/2 ahead of you, about 14\ss/)
    expect(screen.getByTestId('budget').textContent).toMatch(
      /1,200 of 1,000used up, resets in 2\sh/,
    )
    const limits = await screen.findByTestId('own-limits')
    expect(
      within(limits)
        .getAllByRole('term')
        .map((term) => term.textContent),
    ).toEqual(['Weight', 'Running at a time', 'Members of a council'])
    expect(limits.textContent).toContain('2the rule of members')
    expect(screen.getByTestId('freshness').textContent).toBe('live')
  })

  test('says that nobody waits when nobody does, and ends the socket with the page', async () => {
    await open()
    made.at(-1)?.says(idle)
    const sentence = await screen.findByTestId('share-sentence')
    expect(sentence.textContent).toBe('Nobody is using the box.')
    expect(screen.getByText('Nobody is using the box.', { selector: '[role=status]' })).toBeTruthy()
    expect(screen.getByTestId('engine').textContent).toContain('nobody is waiting')
    fireEvent.click(screen.getByRole('link', { name: 'Chat' }))
    await waitFor(() => expect(made.at(-1)?.closed).toBe(true))
  })
})
