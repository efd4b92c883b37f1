import { useState } from 'react'
import { api, type Invitation, type User, value } from '../api/client'
import { useSession } from '../session/SessionProvider'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import { Loaded, Page } from '../ui/Page'
import { ProblemNote } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import { useAction } from '../ui/useAction'
import { useResource } from '../ui/useResource'
import { InviteForm } from './InviteForm'
import { PersonRow } from './PersonRow'
import { SetupLink } from './SetupLink'

const listUsers = () => value(api.GET('/api/admin/users'))

type Change = { disabled: boolean } | { role: User['role'] }

const changeUser = (user: User, change: Change) =>
  value(
    api.PATCH('/api/admin/users/{user_id}', {
      params: { path: { user_id: user.id } },
      body: { disabled: null, role: null, ...change },
    }),
  )

const resetPassword = (user: User) =>
  value(
    api.POST('/api/admin/users/{user_id}/reset-password', {
      params: { path: { user_id: user.id } },
    }),
  )

export default function PeoplePage() {
  const { state } = useSession()
  const me = state.status === 'known' ? state.principal?.id : undefined
  const people = useResource(listUsers)
  const [invitation, setInvitation] = useState<Invitation | null>(null)
  const [leaving, setLeaving] = useState<User | null>(null)
  const [act, { problem }] = useAction(async (work: () => Promise<void>) => work())

  const change = async (user: User, wanted: Change) => {
    await changeUser(user, wanted)
    people.reload()
  }
  const renew = async (user: User) => setInvitation(await resetPassword(user))

  return (
    <Page title="People" lead="Everybody with a place on this box. Only admins see this page.">
      <InviteForm
        onInvited={(invited) => {
          setInvitation(invited)
          people.reload()
        }}
      />
      {invitation !== null && (
        <SetupLink invitation={invitation} onClose={() => setInvitation(null)} />
      )}
      <ProblemNote problem={problem} />
      <Loaded resource={people}>
        {(users) => (
          <ul className={ui.rows} aria-label="People">
            {users.map((user) => (
              <PersonRow
                key={user.id}
                user={user}
                self={user.id === me}
                onRole={(role) => void act(() => change(user, { role }))}
                onEnable={() => void act(() => change(user, { disabled: false }))}
                onDisable={() => setLeaving(user)}
                onNewLink={() => void act(() => renew(user))}
              />
            ))}
          </ul>
        )}
      </Loaded>
      {leaving !== null && (
        <ConfirmDialog
          title={`Disable ${leaving.name}?`}
          action="Disable"
          onConfirm={() => change(leaving, { disabled: true })}
          onClose={() => setLeaving(null)}
        >
          They can no longer log in, and their API keys stop working, until you enable them again.
        </ConfirmDialog>
      )}
    </Page>
  )
}
