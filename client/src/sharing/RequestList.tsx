import { Text } from '@mantine/core'
import type { OwnRequest } from '../api/client'
import { counted } from '../ui/format'
import { type Turn, turnWords } from '../ui/turn'
import ui from '../ui/ui.module.css'
import classes from './sharing.module.css'

interface Props {
  requests: readonly OwnRequest[]
  turns: ReadonlyMap<string, Turn>
  now: number
}

export function RequestList({ requests, turns, now }: Props) {
  if (requests.length === 0) {
    return <Text c="dimmed">You have nothing running and nothing waiting.</Text>
  }
  return (
    <ul className={ui.rows}>
      {requests.map((request) => (
        <li key={request.id} className={classes.request} data-testid="own-request">
          <div className={classes.requestModel}>
            <Text fw={550}>{request.model}</Text>
            {request.engine !== request.model && (
              <Text size="sm" c="dimmed">
                {request.engine}
              </Text>
            )}
          </div>
          <Text size="sm" className={classes.standing} data-state={request.state}>
            {standing(request, turns.get(request.id), now)}
          </Text>
        </li>
      ))}
    </ul>
  )
}

function standing({ state, output_tokens }: OwnRequest, turn: Turn | undefined, now: number) {
  if (state === 'queued') return turn === undefined ? 'Waiting' : turnWords(turn, now)
  return output_tokens === 0
    ? 'Running, no token yet'
    : `Running, ${counted(output_tokens, 'token')} so far`
}
