import { ActionIcon, Badge, Group, Loader, Menu, Text } from '@mantine/core'
import { IconAlertTriangle, IconDots } from '@tabler/icons-react'
import { useState } from 'react'
import type { Device, Engine, EngineKind } from '../api/client'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import { count, counted } from '../ui/format'
import { ProblemNote } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import { useAction } from '../ui/useAction'
import { changeEngine, removeEngine, testEngine } from './calls'
import { EditEngine } from './EditEngine'
import classes from './engines.module.css'
import { Findings } from './Findings'
import { Limits } from './Limits'
import { kindLabel, remarksOf, stateOf } from './words'

interface Props {
  engine: Engine
  kinds: EngineKind[]
  devices: Device[]
  onChanged: () => void
}

export function EngineRow({ engine, kinds, devices, onChanged }: Props) {
  const { name, is_draining } = engine
  const [asking, setAsking] = useState<'change' | 'remove' | null>(null)
  const [test, testing] = useAction(async () => {
    await testEngine(name)
    onChanged()
  })
  const [drain, draining] = useAction(async () => {
    await changeEngine(name, { is_draining: !is_draining })
    onChanged()
  })
  return (
    <li data-testid="engine-row">
      <div className={ui.rowText}>
        <Heading engine={engine} />
        <Facts engine={engine} devices={devices} />
        <Limits engine={engine} />
        <Findings engine={engine} isTesting={testing.pending} onTest={() => void test()} />
        <Text size="sm" c="dimmed" role="status" className={classes.testing}>
          {testing.pending && (
            <>
              <Loader size={13} aria-hidden="true" /> It is being tested. That can take a minute.
            </>
          )}
        </Text>
        <ProblemNote problem={testing.problem ?? draining.problem} />
      </div>
      <Actions
        engine={engine}
        isTesting={testing.pending}
        onTest={() => void test()}
        onDrain={() => void drain()}
        onAsk={setAsking}
      />
      {asking === 'change' && (
        <EditEngine
          engine={engine}
          kinds={kinds}
          devices={devices}
          onChanged={onChanged}
          onClose={() => setAsking(null)}
        />
      )}
      {asking === 'remove' && (
        <ConfirmDialog
          title={`Remove ${name}?`}
          action="Remove"
          onConfirm={async () => {
            await removeEngine(name)
            onChanged()
          }}
          onClose={() => setAsking(null)}
        >
          {removalWords(engine)}
        </ConfirmDialog>
      )}
    </li>
  )
}

function removalWords({ in_use, has_api_key }: Engine): string {
  const key = has_api_key ? ', and its API key is forgotten' : ''
  const running = in_use === 0 ? '' : ` ${counted(in_use, 'request')} on it will go on to the end.`
  return `Nobody is sent there any more${key}.${running}`
}

function Heading({ engine }: { engine: Engine }) {
  const { name, kind, is_up, is_draining, is_fixed, breaker } = engine
  const { word, color } = stateOf(engine)
  return (
    <Group gap={8}>
      <Text fw={550}>{name}</Text>
      <Badge color={color}>{word}</Badge>
      {!is_up && is_draining && <Badge color="orange">draining</Badge>}
      {breaker !== 'closed' && <Badge color="red">breaker {breaker}</Badge>}
      <Text size="sm" c="dimmed">
        {kindLabel(kind)}
        {is_fixed && ' · in the settings, and changed only there'}
      </Text>
    </Group>
  )
}

function Facts({ engine, devices }: { engine: Engine; devices: Device[] }) {
  const { url, slots, in_use, models, is_up, has_api_key, moves_models } = engine
  const use = slots === null ? `${in_use} in use` : `${in_use} of ${counted(slots, 'slot')} in use`
  const on = engine.devices.map((uuid) => devices.find((each) => each.uuid === uuid)?.name ?? uuid)
  const words = [
    url,
    has_api_key ? 'with an API key' : null,
    on.length > 0 ? `on ${on.join(', ')}` : null,
    moves_models ? 'its models are loaded and unloaded' : null,
    use,
  ]
  return (
    <>
      <Text size="sm" c="dimmed" className={classes.figures}>
        {words.filter((word) => word !== null).join(' · ')}
      </Text>
      {remarksOf(engine).map((remark) => (
        <p key={remark} className={classes.remark} data-bad={!is_up}>
          {!is_up && <IconAlertTriangle size={15} aria-hidden="true" />} {remark}
        </p>
      ))}
      {models.length > 0 && (
        <ul className={classes.models} aria-label={`Models of ${engine.name}`}>
          {models.map(({ id, context_tokens }) => (
            <li key={id}>
              {id}
              {context_tokens !== null && <span> {count(context_tokens)} tokens of context</span>}
            </li>
          ))}
        </ul>
      )}
      {is_up && models.length === 0 && (
        <Text size="sm" c="dimmed">
          It has no models.
        </Text>
      )}
    </>
  )
}

interface ActionsProps {
  engine: Engine
  isTesting: boolean
  onTest: () => void
  onDrain: () => void
  onAsk: (what: 'change' | 'remove') => void
}

function Actions({ engine, isTesting, onTest, onDrain, onAsk }: ActionsProps) {
  const { name, is_fixed, is_draining } = engine
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <ActionIcon
          variant="default"
          size={30}
          className={classes.actions}
          aria-label={`Actions for ${name}`}
        >
          <IconDots size={16} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={onTest} disabled={isTesting}>
          Test again
        </Menu.Item>
        {!is_fixed && (
          <>
            <Menu.Item onClick={onDrain}>{is_draining ? 'Take in again' : 'Drain'}</Menu.Item>
            <Menu.Item onClick={() => onAsk('change')}>Change…</Menu.Item>
            <Menu.Item c="var(--mantine-color-error)" onClick={() => onAsk('remove')}>
              Remove…
            </Menu.Item>
          </>
        )}
      </Menu.Dropdown>
    </Menu>
  )
}
