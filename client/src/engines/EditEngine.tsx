import { Modal } from '@mantine/core'
import { useState } from 'react'
import type { Device, Engine, EngineKind } from '../api/client'
import { changeEngine } from './calls'
import { changesOf, draftOf } from './draft'
import { EngineForm } from './EngineForm'

interface Props {
  engine: Engine
  kinds: EngineKind[]
  devices: Device[]
  onChanged: () => void
  onClose: () => void
}

export function EditEngine({ engine, kinds, devices, onChanged, onClose }: Props) {
  // As it was when the form was opened: the page goes on asking for news.
  const [before] = useState(() => draftOf(engine))
  return (
    <Modal opened onClose={onClose} size="lg" title={`Change ${engine.name}`}>
      <EngineForm
        label={`Change ${engine.name}`}
        action="Save"
        waiting="It is asked for its models."
        initial={before}
        engine={engine}
        kinds={kinds}
        devices={devices}
        onSubmit={async (draft) => {
          const changes = changesOf(before, draft)
          if (Object.keys(changes).length > 0) {
            await changeEngine(engine.name, changes)
            onChanged()
          }
          onClose()
        }}
        onCancel={onClose}
      />
    </Modal>
  )
}
