import type { UsageRow } from '../api/client'

export interface Totals {
  requests: number
  input: number
  output: number
}

export function totalsOf(rows: readonly UsageRow[]): Totals {
  return {
    requests: rows.length,
    input: rows.reduce((sum, row) => sum + row.input_tokens, 0),
    output: rows.reduce((sum, row) => sum + row.output_tokens, 0),
  }
}
