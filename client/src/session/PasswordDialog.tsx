import { Button, Modal, Stack, Text } from '@mantine/core'
import { type SubmitEvent, useState } from 'react'
import { api, value } from '../api/client'
import { ProblemNote } from '../ui/ProblemNote'
import { SecretInput } from '../ui/SecretInput'
import { useAction } from '../ui/useAction'
import { NewPasswordFields } from './NewPasswordFields'
import { passwordProblem } from './passwords'

interface Props {
  opened: boolean
  onClose: () => void
}

export function PasswordDialog({ opened, onClose }: Props) {
  return (
    <Modal opened={opened} onClose={onClose} title="Change password">
      <PasswordForm onClose={onClose} />
    </Modal>
  )
}

/** Apart from the dialog, so that closing it forgets what was typed. */
function PasswordForm({ onClose }: { onClose: () => void }) {
  const [current, setCurrent] = useState('')
  const [secret, setSecret] = useState({ password: '', repeated: '' })
  const [done, setDone] = useState(false)
  const [change, { pending, problem }] = useAction(async () => {
    await value(api.POST('/api/password', { body: { current, new: secret.password } }))
    setDone(true)
  })
  const ready = current !== '' && passwordProblem(secret.password, secret.repeated) === null

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (ready) void change()
  }

  if (done) {
    return (
      <Stack gap="md" align="flex-start">
        <Text role="status">Your password is changed.</Text>
        <Button onClick={onClose} data-autofocus>
          Close
        </Button>
      </Stack>
    )
  }
  return (
    <form onSubmit={submit}>
      <Stack gap="md">
        <SecretInput
          label="Current password"
          autoComplete="current-password"
          value={current}
          onChange={setCurrent}
          data-autofocus
        />
        <NewPasswordFields
          label="New password"
          repeatLabel="Repeat new password"
          value={secret}
          onChange={setSecret}
        />
        <ProblemNote problem={problem} />
        <Button type="submit" loading={pending} disabled={!ready}>
          Change password
        </Button>
      </Stack>
    </form>
  )
}
