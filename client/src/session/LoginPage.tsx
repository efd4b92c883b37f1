import { Button, Text, TextInput } from '@mantine/core'
import { type SubmitEvent, useState } from 'react'
import { useLocation, useSearch } from 'wouter'
import { api, value } from '../api/client'
import { DoorPage } from '../ui/DoorPage'
import { ProblemNote } from '../ui/ProblemNote'
import { SecretInput } from '../ui/SecretInput'
import { useAction } from '../ui/useAction'
import { isOwnPage, nextPath } from './next'
import { useSession } from './SessionProvider'

export default function LoginPage() {
  const session = useSession()
  const search = useSearch()
  const [, go] = useLocation()
  const [name, setName] = useState('')
  const [password, setPassword] = useState('')
  const [logIn, { pending, problem }] = useAction(async () => {
    const principal = await value(api.POST('/api/login', { body: { name, password } }))
    const next = nextPath(search)
    if (isOwnPage(next)) {
      window.location.replace(next)
      return
    }
    session.enter(principal)
    go(next, { replace: true })
  })

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    void logIn()
  }

  return (
    <DoorPage title="Log in">
      <form onSubmit={submit}>
        <TextInput
          label="Name"
          name="name"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          autoFocus
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
        />
        <SecretInput
          label="Password"
          autoComplete="current-password"
          value={password}
          onChange={setPassword}
        />
        <ProblemNote problem={problem} />
        <Button type="submit" loading={pending} disabled={name === '' || password === ''}>
          Log in
        </Button>
      </form>
      <Text size="sm" c="dimmed">
        Forgot your password? An admin can make you a new set-up link.
      </Text>
    </DoorPage>
  )
}
