import { Button, Group } from '@mantine/core'
import { IconArrowLeft } from '@tabler/icons-react'
import { useCallback, useState } from 'react'
import { Link, useParams } from 'wouter'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import NotFoundPage from '../ui/NotFoundPage'
import { Loaded, Page } from '../ui/Page'
import { useResource } from '../ui/useResource'
import { InForce } from './InForce'
import classes from './quotas.module.css'
import { RuleForm } from './RuleForm'
import { clearRule, loadStanding, pathOf, type Scope, type Standing, titleOf } from './scope'

export default function ScopePage() {
  const path = useParams()['*'] ?? ''
  const load = useCallback(() => loadStanding(path), [path])
  const standing = useResource(load)
  const { data, problem, loading, reload } = standing
  if (!loading && problem === null && data === null) return <NotFoundPage />
  // While another scope loads, nothing of the one before is shown under its name.
  const current = data !== null && pathOf(data.scope) === path ? data : null
  return (
    <Page
      title={current === null ? 'Quota' : headingOf(current.scope)}
      lead={lead(current)}
      action={
        <Link href="/quotas" className={classes.back}>
          <IconArrowLeft size={15} aria-hidden="true" /> All quotas
        </Link>
      }
    >
      <Loaded resource={{ ...standing, data: current }}>
        {(known) => <ScopeView key={path} standing={known} onChanged={reload} />}
      </Loaded>
    </Page>
  )
}

const headingOf = (scope: Scope) =>
  scope.kind === 'default' ? 'Quota of everybody' : `Quota of ${titleOf(scope)}`

function lead(standing: Standing | null): string | undefined {
  const scope = standing?.scope
  if (scope?.kind === 'default') return 'It holds where no other rule says otherwise.'
  if (scope?.kind === 'role') return 'What this rule leaves out comes from everybody’s rule.'
  if (scope?.kind !== 'user') return undefined
  return `${scope.name} is ${scope.role === 'admin' ? 'an admin' : 'a member'}. What their own rule leaves out comes from the rule of ${scope.role}s, then from everybody’s rule.`
}

interface Props {
  standing: Standing
  onChanged: () => void
}

/** What is in force, or the form that changes it. */
function ScopeView({ standing, onChanged }: Props) {
  const { scope, rule, limits } = standing
  const [editing, setEditing] = useState(false)
  const [clearing, setClearing] = useState(false)
  const [warnings, setWarnings] = useState<string[]>([])
  if (editing) {
    return (
      <RuleForm
        standing={standing}
        onSaved={(told) => {
          setWarnings(told)
          setEditing(false)
          onChanged()
        }}
        onCancel={() => setEditing(false)}
      />
    )
  }
  return (
    <>
      <div role="status" className={classes.warnings}>
        {warnings.map((warning) => (
          <p key={warning}>{warning}</p>
        ))}
      </div>
      <InForce scope={scope} limits={limits} />
      <Group gap="xs">
        <Button onClick={() => setEditing(true)}>Change</Button>
        {Object.keys(rule).length > 0 && (
          <Button variant="default" onClick={() => setClearing(true)}>
            Clear the rule…
          </Button>
        )}
      </Group>
      {clearing && (
        <ConfirmDialog
          title={
            scope.kind === 'default'
              ? 'Clear the rule of everybody?'
              : `Clear the rule of ${titleOf(scope)}?`
          }
          action="Clear"
          onConfirm={async () => {
            await clearRule(scope)
            setWarnings([])
            onChanged()
          }}
          onClose={() => setClearing(false)}
        >
          Every limit is inherited again, from the next request on.
        </ConfirmDialog>
      )}
    </>
  )
}
