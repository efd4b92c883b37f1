import { Button, Group, Loader } from '@mantine/core'
import { IconCloudQuestion } from '@tabler/icons-react'
import { useCallback, useId } from 'react'
import { useChatStore } from '../chat/ChatContext'
import { binary, span } from '../ui/format'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { useNow } from '../ui/useNow'
import { useResource } from '../ui/useResource'
import { BodyView } from './BodyView'
import { answerConsent, listConsents } from './calls'
import classes from './cloud.module.css'
import type { Asks, Consent, Found } from './wire'
import { micros } from './words'

/** Asks whether this request may leave, while it waits: to whom, what exactly, and why. */
export function AskCard({ asks }: { asks: Asks }) {
  const store = useChatStore()
  const title = useId()
  const { token } = asks
  const load = useCallback(async () => {
    const open = await listConsents()
    // Null: it was answered meanwhile, here or in another tab.
    return { consent: open.find((one) => one.token === token && !one.given) ?? null }
  }, [token])
  const consents = useResource(load)
  const consent = consents.data?.consent ?? null
  const [say, { pending, problem }] = useAction(async (answer: 'yes' | 'no') => {
    await answerConsent(token, answer)
    store.consented(token)
  })
  return (
    <section
      className={classes.ask}
      aria-labelledby={title}
      data-testid="cloud-ask"
      data-keeps-escape
      onKeyDown={(event) => {
        if (event.key !== 'Escape' || event.nativeEvent.isComposing) return
        event.stopPropagation()
        void say('no')
      }}
    >
      <h3 id={title}>
        <IconCloudQuestion size={18} aria-hidden="true" />
        <span>
          May this leave the box, to <b>{asks.model}</b> at <b>{asks.provider}</b>?
        </span>
      </h3>
      <p className={classes.askFacts}>
        {consent?.sentence && <>{consent.sentence} </>}
        <Facts asks={asks} atMost={consent?.reserved_micros ?? 0} />
      </p>
      <ProblemNote problem={consents.problem} onRetry={consents.reload} />
      {consents.loading && consents.data === null && (
        <Loader size="xs" aria-label="Loading what would leave" />
      )}
      {consent !== null && <Contents consent={consent} />}
      {consents.data !== null && consent === null && (
        <p className={classes.askFacts}>
          This question has been answered, or nobody waits any more.
        </p>
      )}
      <ProblemNote problem={problem} />
      <Group gap="xs">
        <Button
          size="compact-md"
          variant="default"
          disabled={pending}
          onClick={() => void say('no')}
        >
          Keep waiting here
        </Button>
        <Button
          size="compact-md"
          loading={pending}
          // Nobody says yes to what they have not seen.
          disabled={consent === null || consent.body === null}
          onClick={() => void say('yes')}
        >
          Send
        </Button>
      </Group>
    </section>
  )
}

/** `atMost`: what it may cost, in millionths; 0: nobody knows, or nothing. */
function Facts({ asks, atMost }: { asks: Asks; atMost: number }) {
  const now = useNow()
  const left = Date.parse(asks.expiresAt) - Date.now() + 0 * now
  return (
    <span className={classes.figures}>
      {binary(asks.bodyBytes)} would leave
      {atMost > 0 && <>, for at most {micros(atMost)}</>}. Until you answer it waits here
      {Number.isFinite(left) && left > 0 && `; the question ends in ${span(left)}`}.
    </span>
  )
}

function Contents({ consent: { body, findings: found } }: { consent: Consent }) {
  if (body === null) {
    return (
      <p className={classes.askFacts}>
        Another server of this box holds what would leave, so it cannot be shown here.
      </p>
    )
  }
  const replaced = found.filter(({ text }) => !body.includes(text))
  return (
    <>
      <FoundList title="Found in it" found={found.filter(({ text }) => body.includes(text))} />
      <FoundList title="Replaced by other words" found={replaced} />
      <BodyView body={body} found={found.map(({ text }) => text)} />
    </>
  )
}

function FoundList({ title, found }: { title: string; found: readonly Found[] }) {
  if (found.length === 0) return null
  const each = new Map(found.map((one) => [`${one.what} ${one.text}`, one]))
  return (
    <div className={classes.found}>
      {title}:
      <ul aria-label={title}>
        {[...each].map(([key, { what, text }]) => (
          <li key={key} className={classes.foundItem}>
            <mark>{text}</mark> {what}
          </li>
        ))}
      </ul>
    </div>
  )
}
