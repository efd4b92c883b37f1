import { fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import { expect, test } from 'vitest'
import { App } from '../App'
import { modelsOf } from '../api/models'
import { Shelf } from '../test/conversations'
import { json, serve } from '../test/server'

const council = (id: string, demonstration = false) => ({
  id,
  wirthforge: { council: true, demonstration },
})
const councils = ['council', 'council:self', 'council:lawyers'].map((id) => council(id))

async function chat(data: unknown[] = [...councils, { id: 'small' }, { id: 'large' }]) {
  const calls = serve({
    ...new Shelf().routes,
    'GET /api/session': () => json({ principal: { id: 'p', name: 'ada', role: 'member' } }),
    'GET /v1/models': () => json({ data }),
  })
  render(<App />)
  await screen.findByRole('textbox', { name: 'Message' })
  await waitFor(() => expect(screen.getByLabelText('Model')).toHaveProperty('disabled', false))
  return calls
}

const choose = (label: string, value: string) =>
  fireEvent.change(screen.getByLabelText(label), { target: { value } })

async function asked(calls: Awaited<ReturnType<typeof chat>>) {
  fireEvent.change(screen.getByRole('textbox', { name: 'Message' }), { target: { value: 'Why?' } })
  fireEvent.click(screen.getByRole('button', { name: 'Send' }))
  await screen.findByRole('button', { name: 'Stop' })
  return calls.find(({ path }) => path === '/api/conversations/c1/messages')?.body
}

test('a council is known by its mark, not by its name', () => {
  expect(modelsOf({ data: [council('council', true), { id: 'council' }] })).toEqual([
    { id: 'council', demonstration: true, council: true },
    { id: 'council', demonstration: false, council: false },
  ])
})

test('councils stand in a group of their own, and a model is what one begins with', async () => {
  await chat()
  const group = await screen.findByRole('group', { name: /^Councils/ })
  expect(
    within(group)
      .getAllByRole('option')
      .map((option) => (option as HTMLOptionElement).value),
  ).toEqual(['council', 'council:self', 'council:lawyers'])
  expect(screen.getByLabelText('Model')).toHaveProperty('value', 'small')
  expect(screen.queryByLabelText('Council size')).toBeNull()
})

test('without councils the models are a plain list', async () => {
  await chat([{ id: 'small' }])
  await screen.findByRole('option', { name: 'small' })
  expect(screen.queryByRole('group')).toBeNull()
})

test('a council is explained, and its size makes the name that is asked for', async () => {
  const calls = await chat()
  choose('Model', 'council:self')
  expect(screen.getByTestId('council-choice').textContent).toContain('One model answers several')
  choose('Council size', '4')
  expect(await asked(calls)).toMatchObject({ model: 'council:self:4' })
})

test('the server chooses the size where nobody does', async () => {
  const calls = await chat()
  choose('Model', 'council')
  expect(screen.getByLabelText('Council size')).toHaveProperty('value', '')
  expect(await asked(calls)).toMatchObject({ model: 'council' })
})

test('a council that an admin made has no size to choose, and its name stays as it is', async () => {
  const calls = await chat()
  choose('Model', 'council')
  choose('Council size', '3')
  choose('Model', 'council:lawyers')
  expect(screen.queryByLabelText('Council size')).toBeNull()
  expect(await asked(calls)).toMatchObject({ model: 'council:lawyers' })
})

test('a council of demonstration models says so', async () => {
  await chat([{ id: 'tiny', wirthforge: { demonstration: true } }, council('council', true)])
  choose('Model', 'council')
  expect(screen.getByText(/A council of built-in demonstration models/)).toBeTruthy()
})
