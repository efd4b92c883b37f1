import { api, type PriceDefinition, value } from '../api/client'
import { type Range, zone } from './days'
import type { Field } from './words'

export interface Asked extends Range {
  everybody: boolean
  by: Field
}

const queryOf = ({ by, first, last }: Asked) => ({ by, from: first, to: last, tz: zone() })

export function readReport(asked: Asked) {
  const params = { query: queryOf(asked) }
  return value(
    asked.everybody
      ? api.GET('/api/admin/usage', { params })
      : api.GET('/api/usage/report', { params }),
  )
}

/** Where the report is to be had as a file. */
export function fileOf(asked: Asked, format: 'csv' | 'parquet'): string {
  const path = asked.everybody ? '/api/admin/usage/export' : '/api/usage/export'
  return `${path}?${new URLSearchParams({ ...queryOf(asked), format })}`
}

export const listUsage = () => value(api.GET('/api/usage'))

export const listPrices = () =>
  value(api.GET('/api/admin/prices', { params: { query: { history: true } } }))

const at = (model: string) => ({ params: { path: { model } } })

export const setPrice = (model: string, body: PriceDefinition) =>
  value(api.PUT('/api/admin/prices/{model}', { ...at(model), body }))

export const removePrice = async (model: string) => {
  await value(api.DELETE('/api/admin/prices/{model}', at(model)))
}
