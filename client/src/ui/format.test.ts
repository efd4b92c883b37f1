import { expect, test } from 'vitest'
import { ago, binary, counted, duration, energy, longTime, money, span } from './format'

test('durations use the unit one would say', () => {
  const plain = (ms: number) => duration(ms).replaceAll('\u00a0', ' ')
  expect([0, 999, 3240, 59_940, 59_960, 125_000].map(plain)).toEqual([
    '0 ms',
    '999 ms',
    '3.2 s',
    '59.9 s',
    '1 min 0 s',
    '2 min 5 s',
  ])
})

test('sizes are told in binary units', () => {
  const plain = (bytes: number) => binary(bytes).replaceAll('\u00a0', ' ')
  expect([0, 1023, 5 << 20, 1 << 30, 85_520_809_984, 3 * 2 ** 50].map(plain)).toEqual([
    '0 B',
    '1023 B',
    '5 MiB',
    '1.0 GiB',
    '79.6 GiB',
    '3072.0 TiB',
  ])
})

test('counts come with a noun in the right number', () => {
  expect([counted(1, 'token'), counted(2048, 'token')]).toEqual(['1 token', '2,048 tokens'])
})

test('a time to come is rounded up in one unit, from a second on', () => {
  const plain = (ms: number) => span(ms).replaceAll('\u00a0', ' ')
  const waits = [-5000, 0, 900, 14_000, 90_000, 91_000, 5_400_001, 86_400_000, 2_592_000_000]
  expect(waits.map(plain)).toEqual([
    '1 s',
    '1 s',
    '1 s',
    '14 s',
    '90 s',
    '2 min',
    '2 h',
    '24 h',
    '30 d',
  ])
})

test('a time that passed is told as one would', () => {
  const now = Date.parse('2030-01-02T12:00:00Z')
  const times = ['2030-01-02T12:00:01Z', '2030-01-02T11:59:20Z', '2030-01-02T11:57:50Z']
  expect(times.map((iso) => ago(iso, now))).toEqual(['just now', 'just now', '2 minutes ago'])
  expect(ago('2030-01-01T11:00:00Z', now)).toBe('yesterday')
})

test('long times, energy and money use the unit one would say', () => {
  const plain = (words: string) => words.replaceAll('\u00a0', ' ')
  expect([900, 61_000, 3_600_000, 457_200_000].map(longTime).map(plain)).toEqual([
    '900 ms',
    '1 min 1 s',
    '1 h',
    '127 h',
  ])
  expect([540_000, 44_640_000, 4_680_000_000].map(energy).map(plain)).toEqual([
    '540 J',
    '12.4 Wh',
    '1.3 kWh',
  ])
  expect(['0', '12.4', '1234.5', '0.5', '0.00312', '0.0000051'].map(money)).toEqual([
    '0.00',
    '12.40',
    '1,234.50',
    '0.50',
    '0.0031',
    '0.0000051',
  ])
})
