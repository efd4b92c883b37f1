import { Badge, Group, Progress, Text } from '@mantine/core'
import type { Device, Machine } from '../api/client'
import { ago, binary, count } from '../ui/format'
import { ProblemFrame } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import classes from './engines.module.css'
import { absentOf, figuresOf, KIND_WORDS } from './machine'

export function MachineView({ machine }: { machine: Machine }) {
  const { devices, tier, faults, absent, events } = machine
  const hasGpu = devices.some(({ kind }) => kind === 'gpu' || kind === 'mig')
  const nameOf = (uuid: string) => devices.find((device) => device.uuid === uuid)?.name ?? uuid
  return (
    <>
      <Text size="sm" maw="62ch" data-testid="tier">
        {hasGpu ? tier.why : 'No GPU: models compute on the CPU.'} Tier {tier.name}: contexts of up
        to {count(tier.context_tokens)} tokens are feasible.
      </Text>
      {Object.entries(faults).map(([provider, fault]) => (
        <ProblemFrame key={provider} message={`${provider}: ${fault}`} />
      ))}
      {events.map(({ uuid, xid, at }) => (
        <p key={`${uuid} ${xid} ${at}`} className={classes.warning}>
          {nameOf(uuid)} had a fault {ago(at)}: XID {xid}, as NVIDIA’s driver calls it.
        </p>
      ))}
      <ul className={ui.rows} aria-label="Devices">
        {devices.map((device) => (
          <DeviceRow key={device.uuid} device={device} />
        ))}
      </ul>
      {Object.keys(absent).length > 0 && (
        <details className={classes.absent}>
          <summary>What else was looked for</summary>
          <ul>
            {Object.entries(absent).map(([provider, reason]) => (
              <li key={provider}>
                {provider}: {reason}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  )
}

function DeviceRow({ device }: { device: Device }) {
  const { name, kind, memory_bytes, used_bytes, is_divided, throttle } = device
  const missing = absentOf(device)
  return (
    <li className={classes.device} data-testid="device-row">
      <div className={ui.rowText}>
        <Group gap={8}>
          <Text fw={550}>{name}</Text>
          <Badge color="gray">{KIND_WORDS[kind] ?? kind}</Badge>
        </Group>
        <Text size="sm" c="dimmed" className={classes.figures}>
          {figuresOf(device).join(' · ')}
        </Text>
        {throttle !== null && throttle.length > 0 && (
          <p className={classes.warning}>Slowed down: {throttle.join(', ')}.</p>
        )}
        {missing !== '' && (
          <Text size="xs" c="dimmed">
            {missing}
          </Text>
        )}
      </div>
      {!is_divided && memory_bytes !== null && (
        <div className={classes.memory}>
          <Text size="sm" className={classes.figures}>
            {used_bytes === null
              ? `${binary(memory_bytes)} of memory`
              : `${binary(used_bytes)} of ${binary(memory_bytes)} in use`}
          </Text>
          {used_bytes !== null && (
            <Progress
              value={(used_bytes / Math.max(memory_bytes, 1)) * 100}
              size={8}
              aria-label={`Memory of ${name}`}
            />
          )}
        </div>
      )}
    </li>
  )
}
