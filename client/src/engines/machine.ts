/** What is said about a device. Nothing is said of what it does not tell, but why it does not. */
import type { Device } from '../api/client'
import { counted } from '../ui/format'

export const KIND_WORDS: Record<string, string | undefined> = {
  gpu: 'GPU',
  mig: 'MIG slice',
  npu: 'NPU',
  cpu: 'host',
}

const NBSP = '\u00a0'
const watts = (milliwatts: number) => `${Math.round(milliwatts / 1000)}${NBSP}W`

export function figuresOf(device: Device): string[] {
  const { cores, utilisation_percent, temperature_c, power_mw, power_limit_mw } = device
  const figures: string[] = []
  if (device.is_divided) figures.push('divided into MIG slices')
  if (cores !== null) figures.push(counted(cores, 'core'))
  if (utilisation_percent !== null) figures.push(`${utilisation_percent}${NBSP}% busy`)
  if (temperature_c !== null) figures.push(`${temperature_c}${NBSP}°C`)
  if (power_mw !== null) {
    const limit = power_limit_mw === null ? '' : ` of ${watts(power_limit_mw)}`
    figures.push(watts(power_mw) + limit)
  }
  return figures
}

const READINGS = [
  ['sample', 'readings'],
  ['memory_bytes', 'memory'],
  ['used_bytes', 'memory in use'],
  ['utilisation_percent', 'use'],
  ['temperature_c', 'temperature'],
  ['power_mw', 'power'],
] as const

/** "Not told: temperature (Not Supported), power (needs root)". */
export function absentOf({ absent }: Device): string {
  const missing = READINGS.flatMap(([name, word]) => {
    const reason = absent[name]
    return reason === undefined ? [] : [`${word} (${reason})`]
  })
  return missing.length === 0 ? '' : `Not told: ${missing.join(', ')}`
}
