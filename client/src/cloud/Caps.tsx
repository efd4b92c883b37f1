import { Button, Group, Modal, NativeSelect, Text } from '@mantine/core'
import { useState } from 'react'
import { api, type User, value } from '../api/client'
import { Loaded } from '../ui/Page'
import { ProblemNote } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import { useAction } from '../ui/useAction'
import { useResource } from '../ui/useResource'
import { clearCap, setCap } from './calls'
import { RuleForm } from './RuleForm'
import { ruleWords } from './rule'
import type { Cap } from './wire'

const listUsers = () => value(api.GET('/api/admin/users'))

interface Props {
  caps: Cap[]
  onChanged: () => void
}

/** What single people may choose at the most; what they chose is theirs, and not told. */
export function Caps({ caps, onChanged }: Props) {
  const users = useResource(listUsers)
  const [editing, setEditing] = useState<Cap | null>(null)
  const [clear, { problem }] = useAction(async (cap: Cap) => {
    await clearCap(cap.user_id)
    onChanged()
  })
  return (
    <>
      {caps.length === 0 ? (
        <Text size="sm" c="dimmed">
          Nobody has a bound of their own.
        </Text>
      ) : (
        <ul className={ui.rows} aria-label="Bounds of single people">
          {caps.map((cap) => (
            <li key={cap.user_id} data-testid="cap-row">
              <div className={ui.rowText}>
                <Text fw={550}>{cap.name}</Text>
                <Text size="sm" c="dimmed">
                  {ruleWords(cap.policy)}
                </Text>
              </div>
              <Button size="compact-sm" variant="default" onClick={() => setEditing(cap)}>
                Change
              </Button>
              <Button
                size="compact-sm"
                variant="default"
                aria-label={`Remove the bound of ${cap.name}`}
                onClick={() => void clear(cap)}
              >
                Remove
              </Button>
            </li>
          ))}
        </ul>
      )}
      <ProblemNote problem={problem} />
      <Loaded resource={users}>
        {(all) => <NewCap users={unbound(all, caps)} onChoose={setEditing} />}
      </Loaded>
      {editing !== null && (
        <Modal opened onClose={() => setEditing(null)} size="lg" title={`Bound of ${editing.name}`}>
          <RuleForm
            scope="cap"
            rule={editing.policy}
            label={`Bound of ${editing.name}`}
            onSave={async (rule) => {
              await setCap(editing.user_id, rule)
              setEditing(null)
              onChanged()
            }}
            onCancel={() => setEditing(null)}
          />
        </Modal>
      )}
    </>
  )
}

const unbound = (users: User[], caps: Cap[]) =>
  users.filter(({ id }) => !caps.some(({ user_id }) => user_id === id))

function NewCap({ users, onChoose }: { users: User[]; onChoose: (cap: Cap) => void }) {
  const [id, setId] = useState('')
  const chosen = users.find((user) => user.id === id)
  if (users.length === 0) return null
  return (
    <Group gap="xs" align="end">
      <NativeSelect
        size="xs"
        aria-label="Person"
        data={[
          { value: '', label: 'a person' },
          ...users.map((user) => ({ value: user.id, label: user.name })),
        ]}
        value={id}
        onChange={(event) => setId(event.currentTarget.value)}
      />
      <Button
        size="xs"
        variant="default"
        disabled={chosen === undefined}
        onClick={() => {
          if (chosen) onChoose({ user_id: chosen.id, name: chosen.name, policy: {} })
          setId('')
        }}
      >
        Set a bound…
      </Button>
    </Group>
  )
}
