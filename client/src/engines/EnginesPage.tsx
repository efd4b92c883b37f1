import { Button, Text, Title } from '@mantine/core'
import { IconPlus } from '@tabler/icons-react'
import { useState } from 'react'
import type { Device, Engine, EngineKind } from '../api/client'
import { Loaded, Page } from '../ui/Page'
import ui from '../ui/ui.module.css'
import { useResource } from '../ui/useResource'
import { AddEngine } from './AddEngine'
import { listEngines, listKinds, readMachine } from './calls'
import { EngineRow } from './EngineRow'
import classes from './engines.module.css'
import { KindList } from './KindList'
import { MachineView } from './MachineView'
import { useRefreshed } from './useRefreshed'

const REFRESH_MS = 5000

export default function EnginesPage() {
  const engines = useResource(listEngines)
  const machine = useResource(readMachine)
  const kinds = useResource(listKinds)
  const known = { kinds: kinds.data ?? [], devices: machine.data?.devices ?? [] }
  useRefreshed(engines, REFRESH_MS)
  useRefreshed(machine, REFRESH_MS)
  const [adding, setAdding] = useState(false)
  const [added, setAdded] = useState<string | null>(null)
  return (
    <Page
      title="Engines"
      lead="The programs that compute the answers, here or on other machines. What changes here holds at once. Only admins see this page."
      action={
        !adding && (
          <Button leftSection={<IconPlus size={16} />} onClick={() => setAdding(true)}>
            Add an engine
          </Button>
        )
      }
    >
      {adding && (
        <AddEngine
          {...known}
          onAdded={(engine) => {
            setAdding(false)
            setAdded(addedWords(engine))
            engines.reload()
          }}
          onCancel={() => setAdding(false)}
        />
      )}
      <div role="status" className={classes.told}>
        {added !== null && !adding && <p>{added}</p>}
      </div>
      <Loaded resource={engines}>
        {(all) => <EngineList {...known} engines={all} onChanged={engines.reload} />}
      </Loaded>
      <section className={classes.section} aria-label="Kinds">
        <Title order={2} size="h5">
          Kinds that can be added
        </Title>
        <Loaded resource={kinds}>{(all) => <KindList kinds={all} />}</Loaded>
      </section>
      <section className={classes.section} aria-label="Machine">
        <Title order={2} size="h5">
          Machine
        </Title>
        <Loaded resource={machine}>{(known) => <MachineView machine={known} />}</Loaded>
      </section>
    </Page>
  )
}

function addedWords({ name, is_up, models }: Engine): string {
  if (!is_up) return `${name} was added. It does not answer yet; as soon as it does, it is used.`
  if (models.length === 0) return `${name} was added. It answers, but has no model yet.`
  return `${name} was added and is in use.`
}

interface ListProps {
  engines: Engine[]
  kinds: EngineKind[]
  devices: Device[]
  onChanged: () => void
}

function EngineList({ engines, ...rest }: ListProps) {
  if (engines.length === 0) {
    return (
      <Text c="dimmed">There is no engine yet. Until there is one, nobody can ask anything.</Text>
    )
  }
  return (
    <ul className={ui.rows} aria-label="Engines">
      {engines.map((engine) => (
        <EngineRow key={engine.name} engine={engine} {...rest} />
      ))}
    </ul>
  )
}
