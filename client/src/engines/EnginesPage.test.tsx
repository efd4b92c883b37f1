import { act, fireEvent, render, screen, waitFor, within } from '@testing-library/react'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { App } from '../App'
import type { Device, Engine, EngineKind, Machine } from '../api/client'
import { json, refusal, serve } from '../test/server'

const engine = (name: string, fields: Partial<Engine> = {}): Engine => ({
  name,
  kind: 'vllm',
  url: `http://${name}:8000/v1`,
  has_api_key: false,
  is_fixed: false,
  is_up: true,
  is_draining: false,
  moves_models: false,
  devices: [],
  breaker: 'closed',
  in_use: 0,
  slots: 8,
  numbers: {
    slots: { value: 8, origin: 'engine', setting: null },
    prefill_tokens: { value: 2048, origin: 'default', setting: 'engine_prefill_tokens' },
    kv_tokens: { value: 0, origin: 'default', setting: null },
    reserved_slots: { value: null, origin: 'default', setting: 'reserved_slots' },
  },
  kv_tokens: null,
  isolates_caches: null,
  models: [{ id: 'tiny', context_tokens: 4096 }],
  reason: null,
  conformance: {
    stops: 'yes',
    counts: 'yes',
    isolates: 'no',
    continues: 'yes',
    stopped_after_ms: 48,
    error: null,
  },
  ...fields,
})

const host: Device = {
  index: 0,
  uuid: 'host',
  kind: 'cpu',
  provider: 'host',
  vendor: 'amd',
  name: 'EPYC',
  memory_bytes: 64 * 2 ** 30,
  memory_is_shared: true,
  driver: null,
  pci_address: null,
  numa_node: null,
  compute_capability: null,
  cores: 8,
  parent: null,
  is_divided: false,
  sampled_at: '2030-01-01T00:00:00Z',
  used_bytes: 16 * 2 ** 30,
  reserved_bytes: null,
  free_bytes: 48 * 2 ** 30,
  utilisation_percent: 12,
  memory_utilisation_percent: null,
  power_mw: null,
  power_limit_mw: null,
  energy_mj: null,
  temperature_c: null,
  throttle: null,
  processes: null,
  absent: { temperature_c: 'no sensor' },
}

const machine = (fields: Partial<Machine> = {}): Machine => ({
  at: '2030-01-01T00:00:00Z',
  tier: {
    name: 'low',
    memory_bytes: 0,
    context_tokens: 4096,
    seed_tokens_per_s: 30,
    why: 'No GPU with memory was found, so models run on the CPU: low.',
  },
  devices: [host],
  topology: [['same']],
  absent: { nvidia: 'no driver' },
  faults: {},
  events: [],
  ...fields,
})

const builtIn = ['openai', 'llama-server', 'vllm', 'sglang', 'tgi', 'ollama'].map((name) => ({
  name,
  is_built_in: true,
  left_out: null,
}))

let role: 'admin' | 'member'
let engines: Engine[]
let kinds: EngineKind[]
let shown: Machine
let postAnswer: () => Response
let patchAnswer: (body: unknown) => Response
let calls: ReturnType<typeof serve>

beforeEach(() => {
  role = 'admin'
  engines = [engine('gpu')]
  kinds = builtIn
  shown = machine()
  postAnswer = () => {
    engines = [...engines, engine('new', { models: [] })]
    return json(engines.at(-1), 201)
  }
  patchAnswer = (body) => {
    engines = [engine('gpu', body as Partial<Engine>)]
    return json(engines[0])
  }
  calls = serve({
    'GET /api/session': () => json({ principal: { id: 'r', name: 'root', role } }),
    'GET /v1/models': () => json({ data: [{ id: 'tiny' }] }),
    'GET /api/hardware': () => json(shown),
    'GET /api/admin/engines': () => json(engines),
    'GET /api/admin/engines/kinds': () => json(kinds),
    'POST /api/admin/engines': () => postAnswer(),
    'PATCH /api/admin/engines/gpu': ({ body }) => patchAnswer(body),
    'DELETE /api/admin/engines/gpu': () => {
      engines = []
      return json(null, 204)
    },
    'POST /api/admin/engines/test/gpu': () =>
      refusal(503, 'Engine gpu does not answer: it is off.', { 'retry-after': '5' }),
    'POST /api/admin/engines/test/a%2Fb': () => {
      const conformance = {
        stops: 'no',
        counts: 'no',
        isolates: 'unknown',
        continues: 'no',
      } as const
      engines = [engine('a/b', { is_fixed: true, url: null, conformance })]
      return json(conformance)
    },
  })
})
afterEach(() => {
  vi.useRealTimers()
})

async function open() {
  window.history.replaceState(null, '', '/engines')
  render(<App />)
  await screen.findByRole('heading', { name: 'Engines' })
}

const row = async (name: string) =>
  within(
    await waitFor(() => {
      const found = screen
        .getAllByTestId('engine-row')
        .find(({ textContent }) => textContent?.startsWith(name))
      if (found === undefined) throw new Error(`no row of ${name}`)
      return found
    }),
  )

async function choose(name: string, action: string) {
  fireEvent.click(await screen.findByRole('button', { name: `Actions for ${name}` }))
  fireEvent.click(await item(action))
}

/** Mantine hides a menu whose button is out of sight, and in jsdom, which has no layout, all are. */
const item = (name: string) => screen.findByRole('menuitem', { name, hidden: true })

const sent = (method: string) =>
  calls.filter((call) => call.method === method).map(({ path, body }) => [path, body])

describe('the engines', () => {
  test('are a page for admins only', async () => {
    role = 'member'
    window.history.replaceState(null, '', '/engines')
    render(<App />)
    expect(await screen.findByRole('heading', { name: 'There is no such page' })).toBeTruthy()
    expect(screen.queryByRole('link', { name: 'Engines' })).toBeNull()
    expect(calls.some(({ path }) => path === '/api/admin/engines')).toBe(false)
  })

  test('are told with what they are, what they do and what their test found', async () => {
    engines = [
      engine('gpu', { in_use: 2, breaker: 'half-open' }),
      engine('away', { is_up: false, models: [], reason: 'It is off.', conformance: null }),
    ]
    await open()
    const gpu = await row('gpu')
    for (const words of [
      'up',
      'vLLM',
      'http://gpu:8000/v1 · 2 of 8 slots in use',
      'breaker half-open',
      'counts tokens: yes',
      'keeps people’s caches apart: no',
    ]) {
      expect(gpu.getByText(words)).toBeTruthy()
    }
    expect(gpu.getByText(/^stops when its client goes: yes, after 48.ms$/)).toBeTruthy()
    expect(gpu.getByText(/cached prompts of one person for another/)).toBeTruthy()
    const away = await row('away')
    expect(away.getByText('It is off.')).toBeTruthy()
    expect(away.getByText(/It was not tested yet. It will be when nobody uses it/)).toBeTruthy()
    expect(away.queryByRole('button', { name: 'now' })).toBeNull()
    expect(away.queryByText(/counts tokens/)).toBeNull()
  })

  test('say how much they are given at a time, and who says so', async () => {
    const told = engine('gpu').numbers
    if (told === null) throw new Error('no numbers')
    engines = [
      engine('gpu', {
        moves_models: true,
        devices: ['host', 'gpu-9'],
        numbers: { ...told, kv_tokens: { value: 65536, origin: 'admin', setting: null } },
      }),
    ]
    await open()
    const limits = within(await screen.findByLabelText('Limits of gpu'))
    const said = limits.getAllByRole('definition').map(({ textContent }) => textContent)
    expect(said).toEqual([
      '8 told by the engine',
      '2,048 default',
      '65,536 set here',
      'automatic default',
    ])
    expect(screen.getByTitle('The setting engine_prefill_tokens.')).toBeTruthy()
    expect(await screen.findByText(/on EPYC, gpu-9 · its models are loaded/)).toBeTruthy()
  })

  test('are of the kinds that the server has; a plugin that does not work is named', async () => {
    kinds = [
      ...builtIn,
      { name: 'gateway', is_built_in: false, left_out: null },
      { name: 'broken', is_built_in: false, left_out: "No module named 'x'" },
    ]
    await open()
    const list = within(await screen.findByRole('list', { name: 'Kinds of engines' }))
    expect(list.getAllByRole('listitem').map(({ textContent }) => textContent)).toEqual([
      'OpenAI-compatible',
      'llama-server',
      'vLLM',
      'SGLang',
      'TGI',
      'Ollama',
      'gateway plugin',
    ])
    expect(screen.getByText("The plugin broken is left out. No module named 'x'")).toBeTruthy()
    fireEvent.click(screen.getByRole('button', { name: 'Add an engine' }))
    const choice = within(await screen.findByRole('combobox', { name: 'Kind' }))
    const choices = choice.getAllByRole('option').map(({ textContent }) => textContent)
    expect(choices).toContain('gateway')
    expect(choices).not.toContain('broken')
  })

  test('of the settings can be tested, and nothing else', async () => {
    engines = [engine('a/b', { is_fixed: true, url: null, conformance: null })]
    await open()
    expect((await row('a/b')).getByText(/in the settings, and changed only there/)).toBeTruthy()
    fireEvent.click(await screen.findByRole('button', { name: 'Actions for a/b' }))
    const items = await screen.findAllByRole('menuitem', { hidden: true })
    expect(items.map(({ textContent }) => textContent)).toEqual(['Test again'])
    fireEvent.click(screen.getByRole('button', { name: 'now' }))
    expect(await (await row('a/b')).findByText('stops when its client goes: no')).toBeTruthy()
    expect(screen.getByText(/It computes on when somebody stops an answer/)).toBeTruthy()
  })

  test('are added; what the server refuses stands at its field', async () => {
    await open()
    fireEvent.click(screen.getByRole('button', { name: 'Add an engine' }))
    const name = await screen.findByRole('textbox', { name: 'Name' })
    expect(document.activeElement).toBe(name)
    fireEvent.click(screen.getByRole('button', { name: 'Add' }))
    expect(await screen.findByText('Give it a name.')).toBeTruthy()
    expect(sent('POST')).toEqual([])

    const url = screen.getByRole('textbox', { name: 'URL' })
    fireEvent.change(name, { target: { value: 'new' } })
    fireEvent.change(screen.getByRole('combobox', { name: 'Kind' }), { target: { value: 'vllm' } })
    fireEvent.change(url, { target: { value: 'ftp://new' } })
    fireEvent.change(screen.getByLabelText('API key (optional)'), { target: { value: 's3cret' } })
    fireEvent.change(screen.getByLabelText('Slots'), {
      target: { value: '12' },
    })
    fireEvent.click(screen.getByRole('checkbox', { name: /load and unload its models/ }))
    const message = 'The URL of an engine begins with http:// or https:// and a host.'
    const answer = postAnswer
    postAnswer = () => json({ error: { message, code: 'invalid_request', param: 'url' } }, 400)
    fireEvent.click(screen.getByRole('button', { name: 'Add' }))
    expect(await screen.findByText(message)).toBeTruthy()
    await waitFor(() => expect(document.activeElement).toBe(url))
    expect(url.getAttribute('aria-invalid')).toBe('true')

    postAnswer = answer
    fireEvent.change(url, { target: { value: 'http://new:8000/v1' } })
    fireEvent.click(screen.getByRole('button', { name: 'Add' }))
    expect(await (await row('new')).findByText('It has no models.')).toBeTruthy()
    expect(screen.getByText('new was added. It answers, but has no model yet.')).toBeTruthy()
    expect(sent('POST').at(-1)).toEqual([
      '/api/admin/engines',
      {
        name: 'new',
        kind: 'vllm',
        url: 'http://new:8000/v1',
        api_key: 's3cret',
        slots: 12,
        prefill_tokens: null,
        kv_tokens: null,
        reserved_slots: null,
        moves_models: true,
        devices: [],
        is_draining: false,
      },
    ])
  })

  test('are drained and taken in again', async () => {
    await open()
    await choose('gpu', 'Drain')
    expect(await screen.findByText(/nothing runs on it: it can be switched off/)).toBeTruthy()
    await choose('gpu', 'Take in again')
    await waitFor(() => expect(screen.queryByText('draining')).toBeNull())
    expect(sent('PATCH').map(([, body]) => body)).toEqual([
      { is_draining: true },
      { is_draining: false },
    ])
  })

  test('are changed; only what is another is sent', async () => {
    const told = engine('gpu').numbers
    if (told === null) throw new Error('no numbers')
    const numbers = { ...told, slots: { value: 12, origin: 'admin' as const, setting: null } }
    engines = [engine('gpu', { has_api_key: true, numbers })]
    shown = machine({ devices: [{ ...host, uuid: 'gpu-0', kind: 'gpu', name: 'H100' }, host] })
    await open()
    await choose('gpu', 'Change…')
    const form = within(await screen.findByRole('form', { name: 'Change gpu' }))
    const slots = form.getByLabelText('Slots') as HTMLInputElement
    expect(slots.value).toBe('12')
    const perStep = form.getByLabelText('Prompt tokens per step') as HTMLInputElement
    expect(perStep.placeholder).toBe('2,048 (default)')
    fireEvent.change(perStep, { target: { value: 'many' } })
    fireEvent.click(form.getByRole('button', { name: 'Save' }))
    expect(await form.findByText('Give a whole number from 0 on, or nothing.')).toBeTruthy()
    expect(sent('PATCH')).toEqual([])

    patchAnswer = () =>
      json({ error: { message: 'Too many.', code: 'invalid_request', param: 'kv_tokens' } }, 400)
    fireEvent.change(perStep, { target: { value: '' } })
    fireEvent.change(slots, { target: { value: ' ' } })
    fireEvent.change(form.getByLabelText('Tokens in memory'), { target: { value: '65,536' } })
    fireEvent.change(form.getByLabelText('URL'), { target: { value: 'http://b:8000/v1' } })
    expect(form.getByText(/stays if this is empty, and goes to the new URL/)).toBeTruthy()
    fireEvent.click(form.getByRole('checkbox', { name: 'Forget the key that it has' }))
    fireEvent.click(form.getByRole('checkbox', { name: 'H100 (GPU 0)' }))
    fireEvent.click(form.getByRole('button', { name: 'Save' }))
    expect(await form.findByText('Too many.')).toBeTruthy()
    await waitFor(() =>
      expect(document.activeElement).toBe(form.getByLabelText('Tokens in memory')),
    )

    patchAnswer = () => json(engine('gpu'))
    fireEvent.click(form.getByRole('button', { name: 'Save' }))
    await waitFor(() => expect(screen.queryByRole('dialog')).toBeNull())
    expect(sent('PATCH').at(-1)?.[1]).toEqual({
      url: 'http://b:8000/v1',
      slots: null,
      kv_tokens: 65536,
      devices: ['gpu-0'],
      api_key: '',
    })
  })

  test('are left as they are where nothing was changed', async () => {
    await open()
    await choose('gpu', 'Change…')
    fireEvent.click(await screen.findByRole('button', { name: 'Save' }))
    await waitFor(() => expect(screen.queryByRole('dialog')).toBeNull())
    expect(sent('PATCH')).toEqual([])
  })

  test('tell at their row what went wrong', async () => {
    await open()
    await choose('gpu', 'Test again')
    const told = await (await row('gpu')).findByRole('alert')
    expect(told.textContent).toContain('Engine gpu does not answer: it is off.')
  })

  test('are removed only after a question', async () => {
    await open()
    await choose('gpu', 'Remove…')
    expect(await screen.findByText('Remove gpu?')).toBeTruthy()
    expect(sent('DELETE')).toEqual([])
    fireEvent.click(screen.getByRole('button', { name: 'Remove' }))
    expect(await screen.findByText(/There is no engine yet/)).toBeTruthy()
    expect(screen.queryByTestId('engine-row')).toBeNull()
  })

  test('are asked for every five seconds, but not while the page is hidden', async () => {
    await open()
    await row('gpu')
    const asked = () => calls.filter(({ path }) => path === '/api/admin/engines').length
    vi.useFakeTimers()
    const hidden = vi.spyOn(document, 'hidden', 'get').mockReturnValue(true)
    // The wait that began with the first answer is the real clock's: begin one on the false clock.
    hidden.mockReturnValue(false)
    await act(async () => {
      document.dispatchEvent(new Event('visibilitychange'))
      await vi.advanceTimersByTimeAsync(0)
    })
    const before = asked()
    await act(() => vi.advanceTimersByTimeAsync(5100))
    expect(asked()).toBe(before + 1)
    hidden.mockReturnValue(true)
    await act(() => vi.advanceTimersByTimeAsync(20_000))
    expect(asked()).toBe(before + 1)
    hidden.mockReturnValue(false)
    await act(async () => {
      document.dispatchEvent(new Event('visibilitychange'))
      await vi.advanceTimersByTimeAsync(0)
    })
    expect(asked()).toBe(before + 2)
    hidden.mockRestore()
  })
})

describe('the machine', () => {
  test('without a GPU is a normal machine', async () => {
    await open()
    expect((await screen.findByTestId('tier')).textContent).toContain(
      'No GPU: models compute on the CPU.',
    )
    const device = screen.getByTestId('device-row').textContent?.replaceAll('\u00a0', ' ')
    expect(device).toContain('EPYChost8 cores · 12 % busy')
    expect(device).toContain('16.0 GiB of 64.0 GiB in use')
    expect(device).toContain('Not told: temperature (no sensor)')
    expect(screen.getByRole('progressbar', { name: 'Memory of EPYC' })).toBeTruthy()
    expect(screen.getByText('nvidia: no driver')).toBeTruthy()
    expect(screen.queryByRole('alert')).toBeNull()
  })

  test('with a GPU tells heat and power, what slows it down, and faults', async () => {
    const gpu: Device = {
      ...host,
      uuid: 'gpu-0',
      kind: 'gpu',
      name: 'H100',
      cores: null,
      temperature_c: 41,
      power_mw: 119_600,
      power_limit_mw: 700_000,
      throttle: ['thermal'],
      absent: {},
    }
    shown = machine({
      devices: [gpu],
      faults: { amd: 'the driver does not answer' },
      events: [{ uuid: 'gpu-0', xid: 79, at: '2030-01-01T00:00:00Z' }],
    })
    await open()
    const device = await screen.findByTestId('device-row')
    const words = device.textContent?.replaceAll('\u00a0', ' ')
    expect(words).toContain('12 % busy · 41 °C · 120 W of 700 W')
    expect(words).toContain('Slowed down: thermal.')
    expect(screen.getByTestId('tier').textContent).not.toContain('No GPU: ')
    expect(screen.getByText('amd: the driver does not answer')).toBeTruthy()
    expect(screen.getByText(/H100 had a fault .*: XID 79/)).toBeTruthy()
  })
})
