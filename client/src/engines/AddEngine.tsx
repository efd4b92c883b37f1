import type { Device, Engine, EngineKind } from '../api/client'
import { addEngine } from './calls'
import { EMPTY, specOf } from './draft'
import { EngineForm } from './EngineForm'

interface Props {
  kinds: EngineKind[]
  devices: Device[]
  onAdded: (engine: Engine) => void
  onCancel: () => void
}

export function AddEngine({ onAdded, ...rest }: Props) {
  return (
    <EngineForm
      {...rest}
      label="Add an engine"
      action="Add"
      waiting="It is tested with a few requests. That can take a minute."
      initial={EMPTY}
      onSubmit={async (draft) => onAdded(await addEngine(specOf(draft)))}
    />
  )
}
