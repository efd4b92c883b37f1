import { Button, Text } from '@mantine/core'
import { IconPlus } from '@tabler/icons-react'
import { useState } from 'react'
import { Loaded } from '../ui/Page'
import { Section } from '../ui/Section'
import ui from '../ui/ui.module.css'
import { useResource } from '../ui/useResource'
import { addProvider, listProviders } from './calls'
import { ProviderForm } from './ProviderForm'
import { ProviderRow } from './ProviderRow'
import { EMPTY, specOf } from './provider'

/** Whom requests may be sent to. */
export function Providers({ onChanged }: { onChanged: () => void }) {
  const providers = useResource(listProviders)
  const [adding, setAdding] = useState(false)
  const changed = () => {
    providers.reload()
    onChanged()
  }
  return (
    <Section
      title="Providers"
      action={
        !adding && (
          <Button size="xs" leftSection={<IconPlus size={15} />} onClick={() => setAdding(true)}>
            Add a provider
          </Button>
        )
      }
    >
      {adding && (
        <ProviderForm
          label="Add a provider"
          action="Add"
          initial={EMPTY}
          isNew
          onSubmit={async (draft) => {
            await addProvider(specOf(draft))
            setAdding(false)
            changed()
          }}
          onCancel={() => setAdding(false)}
        />
      )}
      <Loaded resource={providers}>
        {(all) =>
          all.length === 0 ? (
            <Text size="sm" c="dimmed">
              There is none, so nothing can leave.
            </Text>
          ) : (
            <ul className={ui.rows} aria-label="Providers">
              {all.map((provider) => (
                <ProviderRow key={provider.name} provider={provider} onChanged={changed} />
              ))}
            </ul>
          )
        }
      </Loaded>
    </Section>
  )
}
