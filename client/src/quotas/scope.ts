/**
 * Whom a rule is for, and what would hold there without it.
 *
 * Each limit is decided by itself: a person's rule, else the rule of their
 * role, else everybody's, else what is built in. To leave a limit out is to
 * inherit it; null is a value like others and says "unlimited". So nothing here
 * may turn a missing key into a null or back.
 */
import { api, type QuotaRule, type QuotaRules, type Role, value } from '../api/client'
import { LIMITS, type LimitName, type LimitValue } from './limits'

export type Scope =
  | { kind: 'default' }
  | { kind: 'role'; role: Role }
  | { kind: 'user'; id: string; name: string; role: Role }

export interface Resolved {
  value: LimitValue
  rule: string
}

/** What is shown of a scope: its own rule, what is in force, and what would be without the rule. */
export interface Standing {
  scope: Scope
  rule: QuotaRule
  limits: Record<LimitName, Resolved>
  inherited: Record<LimitName, Resolved>
}

interface Spoken {
  name: string
  rule: QuotaRule
}

/** What holds when these rules speak, the strongest first; the last must set everything. */
function resolve(rules: readonly Spoken[]): Record<LimitName, Resolved> {
  const resolved = LIMITS.map(({ name }) => {
    const winner = rules.find(({ rule }) => rule[name] !== undefined)
    return [name, { value: winner?.rule[name] ?? null, rule: winner?.name ?? 'built-in' }]
  })
  return Object.fromEntries(resolved)
}

const roleRule = (rules: QuotaRules, role: Role): QuotaRule =>
  rules.roles.find((entry) => entry.role === role)?.rule ?? {}

/** The rule of a scope itself; empty where there is none. */
export function ownRule(scope: Scope, rules: QuotaRules): QuotaRule {
  if (scope.kind === 'default') return rules.default
  if (scope.kind === 'role') return roleRule(rules, scope.role)
  return rules.users.find(({ user }) => user.id === scope.id)?.rule ?? {}
}

export function standingOf(scope: Scope, rules: QuotaRules): Standing {
  const weaker: Spoken[] = [{ name: 'built-in', rule: rules.built_in }]
  if (scope.kind !== 'default') weaker.unshift({ name: 'default', rule: rules.default })
  if (scope.kind === 'user') {
    weaker.unshift({ name: `role ${scope.role}`, rule: roleRule(rules, scope.role) })
  }
  const rule = ownRule(scope, rules)
  const limits = resolve([{ name: subjectOf(scope), rule }, ...weaker])
  return { scope, rule, limits, inherited: resolve(weaker) }
}

function subjectOf(scope: Scope): string {
  if (scope.kind === 'default') return 'default'
  return scope.kind === 'role' ? `role ${scope.role}` : `user ${scope.name}`
}

/** Below /quotas/. */
export function pathOf(scope: Scope): string {
  if (scope.kind === 'default') return 'default'
  return scope.kind === 'role' ? `roles/${scope.role}` : `users/${scope.id}`
}

export function titleOf(scope: Scope): string {
  if (scope.kind === 'default') return 'Everybody'
  if (scope.kind === 'user') return scope.name
  return scope.role === 'admin' ? 'Admins' : 'Members'
}

const NAMES = new Set<string>(LIMITS.map(({ name }) => name))

/** Everything about the scope at a path; null where there is no such scope. */
export async function loadStanding(path: string): Promise<Standing | null> {
  const [kind, id = ''] = path.split('/')
  if (kind !== 'users') {
    const scope = scopeOf(kind, id)
    return scope && standingOf(scope, await value(api.GET('/api/admin/quotas')))
  }
  const [rules, told] = await Promise.all([
    value(api.GET('/api/admin/quotas')),
    value(api.GET('/api/admin/quotas/users/{user_id}', { params: { path: { user_id: id } } })),
  ])
  if (told.user === null) return null
  const standing = standingOf({ kind: 'user', ...told.user }, rules)
  // What is in force is the server's to say, not ours to work out.
  const limits = Object.entries(told.limits).filter(([name]) => NAMES.has(name))
  return {
    ...standing,
    rule: told.rule,
    limits: { ...standing.limits, ...Object.fromEntries(limits) },
  }
}

function scopeOf(kind: string | undefined, id: string): Scope | null {
  if (kind === 'default' && id === '') return { kind }
  return kind === 'roles' && (id === 'admin' || id === 'member') ? { kind: 'role', role: id } : null
}

/** Replaces the whole rule; gives the server's warnings. */
export async function saveRule(scope: Scope, body: QuotaRule): Promise<string[]> {
  if (scope.kind === 'default') {
    return (await value(api.PUT('/api/admin/quotas/default', { body }))).warnings
  }
  if (scope.kind === 'role') {
    const params = { path: { role: scope.role } }
    return (await value(api.PUT('/api/admin/quotas/roles/{role}', { params, body }))).warnings
  }
  const params = { path: { user_id: scope.id } }
  return (await value(api.PUT('/api/admin/quotas/users/{user_id}', { params, body }))).warnings
}

export async function clearRule(scope: Scope): Promise<void> {
  if (scope.kind === 'default') await value(api.DELETE('/api/admin/quotas/default'))
  else if (scope.kind === 'role') {
    const params = { path: { role: scope.role } }
    await value(api.DELETE('/api/admin/quotas/roles/{role}', { params }))
  } else {
    const params = { path: { user_id: scope.id } }
    await value(api.DELETE('/api/admin/quotas/users/{user_id}', { params }))
  }
}
