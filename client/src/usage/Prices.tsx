import { ActionIcon, Button, Menu, Text } from '@mantine/core'
import { IconDots, IconPlus } from '@tabler/icons-react'
import { useState } from 'react'
import type { ModelPrice } from '../api/client'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import { dateTime } from '../ui/format'
import { Loaded } from '../ui/Page'
import { Section } from '../ui/Section'
import ui from '../ui/ui.module.css'
import { useResource } from '../ui/useResource'
import { listPrices, removePrice } from './calls'
import { PriceForm } from './PriceForm'
import { type Draft, draftOf, EMPTY, priceWords, titleOf } from './prices'
import classes from './usage.module.css'

/** What models cost now, and what they cost before. */
export function Prices() {
  const prices = useResource(listPrices)
  const [draft, setDraft] = useState<Draft | null>(null)
  const [removing, setRemoving] = useState<ModelPrice | null>(null)
  return (
    <>
      {draft === null ? (
        <Button mr="auto" leftSection={<IconPlus size={16} />} onClick={() => setDraft(EMPTY)}>
          Set a price
        </Button>
      ) : (
        <PriceForm
          key={draft.model}
          initial={draft}
          onSaved={() => {
            setDraft(null)
            prices.reload()
          }}
          onCancel={() => setDraft(null)}
        />
      )}
      <Loaded resource={prices}>
        {(all) => (
          <Lists all={all} onChange={(price) => setDraft(draftOf(price))} onRemove={setRemoving} />
        )}
      </Loaded>
      {removing !== null && (
        <ConfirmDialog
          title={`End the price of ${removing.model === '*' ? 'every other model' : removing.model}?`}
          action="End it"
          onConfirm={async () => {
            await removePrice(removing.model)
            prices.reload()
          }}
          onClose={() => setRemoving(null)}
        >
          What was used until now keeps its cost. From now on the price of every other model holds,
          if there is one.
        </ConfirmDialog>
      )}
    </>
  )
}

interface ListsProps {
  all: ModelPrice[]
  onChange: (price: ModelPrice) => void
  onRemove: (price: ModelPrice) => void
}

function Lists({ all, onChange, onRemove }: ListsProps) {
  const inForce = all.filter(({ until }) => until === null)
  const ended = all.filter(({ until }) => until !== null)
  if (all.length === 0) {
    return <Text c="dimmed">No model has a price yet, so reports tell no cost.</Text>
  }
  return (
    <>
      <Section title="In force">
        {inForce.length === 0 && <Text c="dimmed">No model has a price now.</Text>}
        <ul className={inForce.length === 0 ? undefined : ui.rows} aria-label="Prices in force">
          {inForce.map((price) => (
            <li key={price.model} data-testid="price-row">
              <div className={ui.rowText}>
                <Text fw={550}>{titleOf(price.model)}</Text>
                <Text size="sm" className={classes.figures}>
                  {priceWords(price)}
                </Text>
                <Text size="sm" c="dimmed">
                  since {dateTime(price.since)}
                </Text>
              </div>
              <Menu position="bottom-end">
                <Menu.Target>
                  <ActionIcon
                    variant="default"
                    size={30}
                    aria-label={`Actions for ${titleOf(price.model)}`}
                  >
                    <IconDots size={16} />
                  </ActionIcon>
                </Menu.Target>
                <Menu.Dropdown>
                  <Menu.Item onClick={() => onChange(price)}>Change…</Menu.Item>
                  <Menu.Item c="var(--mantine-color-error)" onClick={() => onRemove(price)}>
                    End it…
                  </Menu.Item>
                </Menu.Dropdown>
              </Menu>
            </li>
          ))}
        </ul>
      </Section>
      {ended.length > 0 && (
        <Section title="Before">
          <ul className={classes.history} aria-label="Prices that have ended">
            {ended.map((price) => (
              <li key={`${price.model} ${price.since}`} data-testid="old-price">
                <b>{titleOf(price.model)}</b> {priceWords(price)}
                <span>
                  {' '}
                  {dateTime(price.since)} to {dateTime(price.until ?? '')}
                </span>
              </li>
            ))}
          </ul>
        </Section>
      )}
    </>
  )
}
