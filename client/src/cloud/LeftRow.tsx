import { Badge, Group, Text } from '@mantine/core'
import { Link } from 'wouter'
import { addressOf } from '../chat/ChatContext'
import { binary, counted, dateTime } from '../ui/format'
import classes from './cloud.module.css'
import type { Departure } from './wire'
import { foundWords, micros } from './words'

/** One request that left: where to, in which form, how much, and what became of it. */
export function LeftRow({ departure }: { departure: Departure }) {
  const { at, provider, model, form, is_consented, conversation_id } = departure
  return (
    <li data-testid="departure">
      <Group gap={8}>
        <Text fw={550}>
          {model} <span className={classes.at}>at {provider}</span>
        </Text>
        <Badge color={form === 'whole' ? 'orange' : 'gray'}>
          {form === 'whole' ? 'as it was' : 'pseudonymised'}
        </Badge>
        {is_consented && <Badge color="gray">you said yes</Badge>}
        <Outcome of={departure} />
      </Group>
      <Text size="sm" className={classes.figures}>
        {sizeWords(departure)}
      </Text>
      <Text size="sm" c="dimmed">
        <time dateTime={at}>{dateTime(at)}</time>
        {conversation_id !== null && (
          <>
            {' · '}
            <Link href={addressOf(conversation_id)}>the conversation</Link>
          </>
        )}
      </Text>
      <details className={classes.more}>
        <summary>Proof</summary>
        <dl>
          <div>
            <dt>Entry in the ledger</dt>
            <dd>{departure.seq}</dd>
          </div>
          <div>
            <dt>SHA-256 of what was sent</dt>
            <dd>
              <code>{departure.sha256}</code>
            </dd>
          </div>
          <div>
            <dt>Looked through by</dt>
            <dd>{detectorWords(departure)}</dd>
          </div>
          <div>
            <dt>Rules, as of change</dt>
            <dd>{departure.policy_version}</dd>
          </div>
        </dl>
      </details>
    </li>
  )
}

function Outcome({ of: { outcome } }: { of: Departure }) {
  if (outcome === 'completed') return null
  return <Badge color={outcome === 'failed' ? 'red' : 'gray'}>{outcome ?? 'under way'}</Badge>
}

function sizeWords(departure: Departure): string {
  const { body_bytes, answer_bytes, findings, spent_micros, reserved_micros, form } = departure
  const found = foundWords(findings)
  const parts = [
    `${binary(body_bytes)} left`,
    answer_bytes !== null && `${binary(answer_bytes)} came back`,
    departure.output_tokens !== null && counted(departure.output_tokens, 'token'),
    spent_micros === null ? `at most ${micros(reserved_micros)}` : `cost ${micros(spent_micros)}`,
    found === ''
      ? 'nothing was found in it'
      : `${found} ${form === 'whole' ? 'found' : 'replaced'}`,
  ]
  return parts.filter((part) => part !== false).join(' · ')
}

const detectorWords = ({ detectors }: Departure) =>
  Object.entries(detectors)
    .map(([name, version]) => `${name} ${version}`)
    .join(', ') || 'nobody'
