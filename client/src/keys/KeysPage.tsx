import { Button, Text } from '@mantine/core'
import { useState } from 'react'
import { type ApiKey, api, type NewApiKey, value } from '../api/client'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import { date, dateTime } from '../ui/format'
import { Loaded, Page } from '../ui/Page'
import ui from '../ui/ui.module.css'
import { useResource } from '../ui/useResource'
import { KeyForm } from './KeyForm'
import { NewKeyPanel } from './NewKeyPanel'

const listKeys = () => value(api.GET('/api/keys'))

export default function KeysPage() {
  const keys = useResource(listKeys)
  const [fresh, setFresh] = useState<NewApiKey | null>(null)
  const [doomed, setDoomed] = useState<ApiKey | null>(null)

  const revoke = async (key: ApiKey) => {
    await value(api.DELETE('/api/keys/{key_id}', { params: { path: { key_id: key.id } } }))
    if (fresh?.id === key.id) setFresh(null)
    keys.reload()
  }

  return (
    <Page
      title="API keys"
      lead="A key lets a program use this box in your name, through the same API that OpenAI's clients speak."
    >
      <KeyForm
        onCreated={(key) => {
          setFresh(key)
          keys.reload()
        }}
      />
      {fresh !== null && <NewKeyPanel fresh={fresh} onClose={() => setFresh(null)} />}
      <Loaded resource={keys}>
        {(list) =>
          list.length === 0 ? (
            <Text c="dimmed">You have no keys yet.</Text>
          ) : (
            <ul className={ui.rows} aria-label="Your keys">
              {list.map((key) => (
                <KeyRow key={key.id} entry={key} onRevoke={() => setDoomed(key)} />
              ))}
            </ul>
          )
        }
      </Loaded>
      {doomed !== null && (
        <ConfirmDialog
          title={`Revoke “${doomed.label}”?`}
          action="Revoke"
          onConfirm={() => revoke(doomed)}
          onClose={() => setDoomed(null)}
        >
          Programs that use this key lose access at once. This cannot be undone.
        </ConfirmDialog>
      )}
    </Page>
  )
}

function KeyRow({ entry, onRevoke }: { entry: ApiKey; onRevoke: () => void }) {
  return (
    <li data-testid="key-row">
      <div className={ui.rowText}>
        <Text fw={550}>{entry.label}</Text>
        <Text size="sm" c="dimmed">
          <Text span ff="monospace" size="xs">
            {entry.prefix}…
          </Text>
          {` · ${facts(entry).join(' · ')}`}
        </Text>
      </div>
      <Button size="xs" variant="default" aria-label={`Revoke ${entry.label}`} onClick={onRevoke}>
        Revoke
      </Button>
    </li>
  )
}

function facts({ created_at, expires_at, last_used_at }: ApiKey): string[] {
  const expired = expires_at !== null && Date.parse(expires_at) <= Date.now()
  return [
    `made ${date(created_at)}`,
    last_used_at === null ? 'never used' : `last used ${dateTime(last_used_at)}`,
    expires_at === null
      ? 'does not expire'
      : `${expired ? 'expired' : 'expires'} ${date(expires_at)}`,
  ]
}
