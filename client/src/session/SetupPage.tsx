import { Button, Code, Loader, Text, TextInput } from '@mantine/core'
import { type SubmitEvent, useCallback, useState } from 'react'
import { Link, useLocation } from 'wouter'
import { api, type SetupOffer, value } from '../api/client'
import { DoorPage } from '../ui/DoorPage'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { useResource } from '../ui/useResource'
import { NewPasswordFields } from './NewPasswordFields'
import { passwordProblem } from './passwords'
import { useSession } from './SessionProvider'

/** The token stands after the # so that it never reaches a server log. */
const tokenOf = (hash: string) => hash.replace(/^#/, '')

export default function SetupPage() {
  const [token] = useState(() => tokenOf(window.location.hash))
  const check = useCallback(() => value(api.POST('/api/setup/check', { body: { token } })), [token])
  const { data: offer, problem, reload } = useResource(check)

  if (token === '' || problem?.status === 404) return <DeadLink />
  if (problem !== null) {
    return (
      <DoorPage title="Welcome">
        <ProblemNote problem={problem} onRetry={reload} />
      </DoorPage>
    )
  }
  if (offer === null) {
    return (
      <DoorPage title="Welcome">
        <Loader size="sm" aria-label="Checking the link" />
      </DoorPage>
    )
  }
  return <SetupForm token={token} offer={offer} />
}

function SetupForm({ token, offer }: { token: string; offer: SetupOffer }) {
  const session = useSession()
  const [, go] = useLocation()
  const [name, setName] = useState(offer.name)
  const [secret, setSecret] = useState({ password: '', repeated: '' })
  const [start, { pending, problem }] = useAction(async () => {
    const body = { token, name: name.trim(), password: secret.password }
    session.enter(await value(api.POST('/api/setup', { body })))
    go('/', { replace: true })
  })
  const ready = name.trim() !== '' && passwordProblem(secret.password, secret.repeated) === null

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    if (ready) void start()
  }

  if (problem?.status === 404) return <DeadLink />
  return (
    <DoorPage title="Welcome">
      <Text size="sm" c="dimmed">
        {offer.role === 'admin'
          ? 'You will be an admin of this box. Choose a password and start.'
          : 'You have a place on this box. Choose a password and start.'}
      </Text>
      <form onSubmit={submit}>
        <TextInput
          label="Name"
          name="name"
          autoComplete="username"
          autoCapitalize="none"
          spellCheck={false}
          value={name}
          onChange={(event) => setName(event.currentTarget.value)}
        />
        <NewPasswordFields
          label="Password"
          repeatLabel="Repeat password"
          value={secret}
          onChange={setSecret}
          autoFocus
        />
        <ProblemNote problem={problem} />
        <Button type="submit" loading={pending} disabled={!ready}>
          Start
        </Button>
      </form>
    </DoorPage>
  )
}

function DeadLink() {
  return (
    <DoorPage title="This link no longer works">
      <Text size="sm">
        A set-up link works once and only for a while. This one was used, has expired, or was not
        copied whole.
      </Text>
      <Text size="sm">
        Ask an admin for a new link, or run this on the box with your name in it:
      </Text>
      <Code block>wirthforge user reset-password NAME</Code>
      <Text size="sm">
        Already set up? <Link href="/login">Log in</Link>
      </Text>
    </DoorPage>
  )
}
