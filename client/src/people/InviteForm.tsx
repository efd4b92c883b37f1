import { Button, NativeSelect, TextInput } from '@mantine/core'
import { type SubmitEvent, useState } from 'react'
import { api, type Invitation, type Role, value } from '../api/client'
import { ProblemNote } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import { useAction } from '../ui/useAction'

const ROLES = [
  { value: 'member', label: 'Member' },
  { value: 'admin', label: 'Admin' },
]

export function InviteForm({ onInvited }: { onInvited: (invitation: Invitation) => void }) {
  const [name, setName] = useState('')
  const [role, setRole] = useState<Role>('member')
  const [invite, { pending, problem }] = useAction(async () => {
    const body = { name: name.trim(), role }
    onInvited(await value(api.POST('/api/admin/users', { body })))
    setName('')
    setRole('member')
  })

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    void invite()
  }

  return (
    <>
      <form className={ui.formRow} onSubmit={submit}>
        <TextInput
          label="Name"
          autoComplete="off"
          autoCapitalize="none"
          spellCheck={false}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
        />
        <NativeSelect
          label="Role"
          data={ROLES}
          value={role}
          onChange={(event) => setRole(event.currentTarget.value === 'admin' ? 'admin' : 'member')}
        />
        <Button type="submit" loading={pending} disabled={name.trim() === ''}>
          Invite
        </Button>
      </form>
      <ProblemNote problem={problem} />
    </>
  )
}
