import { Badge, Group, Text, Title } from '@mantine/core'
import { IconChevronRight } from '@tabler/icons-react'
import type { ReactNode } from 'react'
import { Link } from 'wouter'
import { api, type QuotaRules, type User, value } from '../api/client'
import { Loaded, Page } from '../ui/Page'
import ui from '../ui/ui.module.css'
import { useResource } from '../ui/useResource'
import { AuditLog } from './AuditLog'
import { ruleSummary } from './limits'
import classes from './quotas.module.css'
import { ownRule, pathOf, type Scope, titleOf } from './scope'

async function loadAll() {
  const [rules, users] = await Promise.all([
    value(api.GET('/api/admin/quotas')),
    value(api.GET('/api/admin/users')),
  ])
  return { rules, users }
}

const GROUPS: Scope[] = [
  { kind: 'default' },
  { kind: 'role', role: 'member' },
  { kind: 'role', role: 'admin' },
]

export default function QuotasPage() {
  const everything = useResource(loadAll)
  return (
    <Page
      title="Quotas"
      lead="How much of the box somebody may use. A person’s own rule goes first; what it leaves out comes from the rule of their role, then from everybody’s rule. Only admins see this page."
    >
      <Loaded resource={everything}>{(loaded) => <RuleLists {...loaded} />}</Loaded>
      <section className={classes.section} aria-label="Changes">
        <Title order={2} size="h5">
          Changes
        </Title>
        <AuditLog />
      </section>
    </Page>
  )
}

function RuleLists({ rules, users }: { rules: QuotaRules; users: User[] }) {
  return (
    <>
      <ul className={classes.rules} aria-label="Rules for groups">
        {GROUPS.map((scope) => (
          <RuleRow key={pathOf(scope)} scope={scope} rules={rules} />
        ))}
      </ul>
      <ul className={classes.rules} aria-label="Rules for people">
        {users.map(({ id, name, role, disabled }) => (
          <RuleRow key={id} scope={{ kind: 'user', id, name, role }} rules={rules}>
            {role === 'admin' && <Badge>admin</Badge>}
            {disabled && <Badge color="gray">disabled</Badge>}
          </RuleRow>
        ))}
      </ul>
    </>
  )
}

interface RowProps {
  scope: Scope
  rules: QuotaRules
  children?: ReactNode
}

function RuleRow({ scope, rules, children }: RowProps) {
  const summary = ruleSummary(ownRule(scope, rules))
  return (
    <li className={classes.rule} data-testid="rule-row">
      <Link href={`/quotas/${pathOf(scope)}`} className={classes.ruleLink}>
        <div className={ui.rowText}>
          <Group gap={8}>
            <Text fw={550}>{titleOf(scope)}</Text>
            {children}
          </Group>
          <Text size="sm" c="dimmed">
            {summary === '' ? 'no rule' : summary}
          </Text>
        </div>
        <IconChevronRight size={16} aria-hidden="true" />
      </Link>
    </li>
  )
}
