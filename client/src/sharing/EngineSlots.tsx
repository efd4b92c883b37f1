import { Progress, Text } from '@mantine/core'
import type { EngineShare, OwnRequest } from '../api/client'
import ui from '../ui/ui.module.css'
import classes from './sharing.module.css'

interface Props {
  engines: readonly EngineShare[]
  requests: readonly OwnRequest[]
}

/** More than one would count; a bar says the same. */
const SINGLE_SLOTS_MAX = 48

/** Every engine with its slots: one's own first, then those of others, then the free ones. */
export function EngineSlots({ engines, requests }: Props) {
  const mine = (name: string) =>
    requests.filter(({ engine, state }) => engine === name && state === 'running').length
  return (
    <>
      <ul className={ui.rows}>
        {engines.map((engine) => (
          <li key={engine.name} className={classes.engine} data-testid="engine">
            <Text fw={550} className={classes.engineName}>
              {engine.name}
            </Text>
            <Slots engine={engine} mine={mine(engine.name)} />
            <Text size="sm" c="dimmed" className={classes.engineWords}>
              {`${engine.running} of ${engine.slots} in use · `}
              {engine.waiting === 0 ? 'nobody is waiting' : `${engine.waiting} waiting`}
            </Text>
          </li>
        ))}
      </ul>
      <p className={classes.legend} aria-hidden="true">
        <i className={classes.slot} data-of="me" /> yours
        <i className={classes.slot} data-of="others" /> others’
        <i className={classes.slot} /> free
      </p>
    </>
  )
}

function Slots({ engine, mine }: { engine: EngineShare; mine: number }) {
  const { name, slots, running } = engine
  const own = Math.min(mine, running)
  const label = `${name}: ${running} of ${slots} slots in use, ${own} by you`
  if (slots > SINGLE_SLOTS_MAX) {
    return (
      <Progress.Root role="img" aria-label={label} size={14} className={classes.bar}>
        <Progress.Section value={(own / slots) * 100} />
        <Progress.Section value={((running - own) / slots) * 100} color="gray" />
      </Progress.Root>
    )
  }
  const owner = (slot: number) => (slot < own ? 'me' : slot < running ? 'others' : undefined)
  return (
    <span className={classes.slots} role="img" aria-label={label}>
      {Array.from({ length: Math.max(slots, running) }, (_, slot) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a slot is its place
        <i key={slot} className={classes.slot} data-of={owner(slot)} />
      ))}
    </span>
  )
}
