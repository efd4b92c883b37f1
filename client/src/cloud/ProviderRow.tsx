import { ActionIcon, Badge, Group, Menu, Modal, Text } from '@mantine/core'
import { IconDots } from '@tabler/icons-react'
import { useState } from 'react'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import { ProblemNote } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import { useAction } from '../ui/useAction'
import { changeProvider, checkProvider, removeProvider } from './calls'
import classes from './cloud.module.css'
import { ProviderForm } from './ProviderForm'
import { changeOf, draftOf, KINDS } from './provider'
import type { CloudModel, Provider, ProviderCheck } from './wire'
import { micros } from './words'

interface Props {
  provider: Provider
  onChanged: () => void
}

export function ProviderRow({ provider, onChanged }: Props) {
  const { name, is_enabled } = provider
  const [asking, setAsking] = useState<'change' | 'removal' | null>(null)
  const [checked, setChecked] = useState<ProviderCheck | null>(null)
  const [check, checking] = useAction(async () => setChecked(await checkProvider(name)))
  const [turn, turning] = useAction(async () => {
    await changeProvider(name, { is_enabled: !is_enabled })
    onChanged()
  })
  return (
    <li data-testid="provider-row">
      <div className={ui.rowText}>
        <Heading provider={provider} />
        <ModelList models={provider.models} />
        <Text size="sm" role="status" className={classes.checked}>
          {checking.pending ? 'It is asked for its models…' : checkedWords(checked)}
        </Text>
        <ProblemNote problem={checking.problem ?? turning.problem} />
      </div>
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
          <Menu.Item disabled={checking.pending} onClick={() => void check()}>
            Check
          </Menu.Item>
          <Menu.Item onClick={() => void turn()}>
            {is_enabled ? 'Send nothing there' : 'Use it again'}
          </Menu.Item>
          <Menu.Item onClick={() => setAsking('change')}>Change…</Menu.Item>
          <Menu.Item c="var(--mantine-color-error)" onClick={() => setAsking('removal')}>
            Remove…
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      {asking === 'change' && (
        <Modal opened onClose={() => setAsking(null)} size="lg" title={`Change ${name}`}>
          <ProviderForm
            label={`Change ${name}`}
            action="Save"
            initial={draftOf(provider)}
            isNew={false}
            listed={checked?.models ?? []}
            onSubmit={async (draft) => {
              await changeProvider(name, changeOf(draft, provider))
              setAsking(null)
              onChanged()
            }}
            onCancel={() => setAsking(null)}
          />
        </Modal>
      )}
      {asking === 'removal' && (
        <ConfirmDialog
          title={`Remove ${name}?`}
          action="Remove"
          onConfirm={async () => {
            await removeProvider(name)
            onChanged()
          }}
          onClose={() => setAsking(null)}
        >
          Nothing is sent there any more, and its key is forgotten. The ledger keeps what was sent.
        </ConfirmDialog>
      )}
    </li>
  )
}

function Heading({ provider }: { provider: Provider }) {
  const { name, kind, url, is_enabled, is_resting, has_key, problem } = provider
  return (
    <>
      <Group gap={8}>
        <Text fw={550}>{name}</Text>
        {!is_enabled && <Badge color="gray">off</Badge>}
        {is_resting && <Badge color="orange">resting</Badge>}
        <Text size="sm" c="dimmed">
          {KINDS.find(({ value }) => value === kind)?.label ?? kind}
        </Text>
      </Group>
      <Text size="sm" c="dimmed">
        {url} ·{' '}
        {has_key === null
          ? 'its key cannot be opened here'
          : has_key
            ? 'with a key, which is never shown'
            : 'without a key'}
      </Text>
      {is_resting && (
        <Text size="sm">It has failed or asked for a pause: nothing is sent there just now.</Text>
      )}
      {problem !== null && (
        <Text size="sm" c="var(--mantine-color-error)">
          {problem}
        </Text>
      )}
    </>
  )
}

function ModelList({ models }: { models: readonly CloudModel[] }) {
  if (models.length === 0) {
    return <Text size="sm">It has no models yet, so nothing is sent there.</Text>
  }
  return (
    <ul className={classes.modelList}>
      {models.map((model) => (
        <li key={model.name}>
          {model.name}
          <span>
            {micros(model.input_micros_per_million)} read ·{' '}
            {micros(model.output_micros_per_million)} written · for {forWords(model)}
          </span>
        </li>
      ))}
    </ul>
  )
}

function forWords({ stands_in_for }: CloudModel): string {
  if (stands_in_for.includes('*')) return 'any model'
  return stands_in_for.length === 0 ? 'none, so it is never chosen' : stands_in_for.join(', ')
}

function checkedWords(checked: ProviderCheck | null): string {
  if (checked === null) return ''
  const { is_reachable, reason, models } = checked
  if (!is_reachable) return `It cannot be reached: ${reason ?? 'it does not say why.'}`
  return models.length === 0
    ? 'It answers, and lists no models.'
    : `It answers, and has ${models.length} models: ${models.join(', ')}`
}
