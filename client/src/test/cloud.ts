/** A stand-in for what the server tells of clouds. */
import type { Departure, Rule, Standing, Target } from '../cloud/wire'

const target: Target = {
  provider: 'acme',
  model: 'big-1',
  mode: 'ask',
  won_by: 'built-in',
  on_personal_data: { value: 'ask', won_by: 'built-in' },
  replaces: { value: false, won_by: 'built-in' },
}

export const standing = (more: Partial<Standing> = {}): Standing => ({
  is_on: true,
  mode: { value: 'ask', won_by: 'built-in' },
  in_force: [target],
  on_personal_data: { value: 'ask', won_by: 'built-in' },
  allows_code: { value: false, won_by: 'box' },
  patience_ms: { value: 30_000, won_by: 'built-in' },
  own: {} as Rule,
  cap: {},
  box: { is_on: true },
  budget: { limit_micros: 5_000_000, spent_micros: 1_250_000, reserved_micros: 0 },
  problems: [],
  ...more,
})

export const departure = (seq: number, more: Partial<Departure> = {}): Departure => ({
  seq,
  at: '2026-11-24T00:10:00Z',
  request_id: `r${seq}`,
  conversation_id: 'c1',
  provider: 'acme',
  model: 'big-1',
  policy_version: 3,
  detectors: { secrets: '1', structured: '2' },
  findings: { EMAIL: 2 },
  form: 'pseudonymised',
  is_consented: true,
  body_bytes: 2048,
  sha256: 'ab12cd34'.repeat(8),
  reserved_micros: 9000,
  ended_at: '2026-11-24T00:10:09Z',
  outcome: 'completed',
  answer_bytes: 512,
  input_tokens: 100,
  output_tokens: 50,
  spent_micros: 3100,
  ...more,
})
