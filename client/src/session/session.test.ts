import { describe, expect, test } from 'vitest'
import { isOwnPage, loginPath, nextPath } from './next'
import { passwordProblem } from './passwords'

describe('the way back after logging in', () => {
  test('leads to the page that was asked for', () => {
    expect(nextPath(new URL(loginPath('/keys'), 'http://box').search)).toBe('/keys')
    expect(loginPath('/')).toBe('/login')
  })

  test('knows the page that is no route of the client', () => {
    expect(isOwnPage(nextPath('?next=%2Fdocs'))).toBe(true)
    for (const path of ['/', '/keys', '/docstrings', '/docs/x']) expect(isOwnPage(path)).toBe(false)
  })

  test('never leads to another site or back to the log-in page', () => {
    for (const next of [
      '//evil.example',
      '/\\evil.example',
      'https://evil.example',
      '/login',
      '',
    ]) {
      expect(nextPath(`next=${encodeURIComponent(next)}`)).toBe('/')
    }
    expect(nextPath('next=%2F%09%2Fevil.example')).toBe('/')
  })
})

describe('a new password', () => {
  test('needs ten characters, counted as people count them', () => {
    expect(passwordProblem('123456789', '123456789')).toMatch(/at least 10/)
    expect(passwordProblem('🔨🔨🔨🔨🔨', '🔨🔨🔨🔨🔨')).toMatch(/at least 10/)
    expect(passwordProblem('1234567890', '1234567890')).toBeNull()
  })

  test('has to be the same twice', () => {
    expect(passwordProblem('1234567890', '1234567899')).toMatch(/differ/)
  })
})
