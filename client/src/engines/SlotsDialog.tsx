import { Button, Group, Modal, Stack, TextInput } from '@mantine/core'
import { type SubmitEvent, useState } from 'react'
import type { Engine } from '../api/client'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { changeEngine } from './calls'
import { SLOTS_MISTAKE, slotsOf } from './draft'

interface Props {
  engine: Engine
  onChanged: () => void
  onClose: () => void
}

export function SlotsDialog({ engine: { name, slots }, onChanged, onClose }: Props) {
  const [text, setText] = useState(slots === null ? '' : String(slots))
  const [mistake, setMistake] = useState<string | null>(null)
  const [save, { pending, problem }] = useAction(async (wanted: number | null) => {
    await changeEngine(name, { slots: wanted })
    onChanged()
    onClose()
  })
  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    const wanted = slotsOf(text)
    setMistake(wanted === undefined ? SLOTS_MISTAKE : null)
    if (wanted !== undefined) void save(wanted)
  }
  const atField = problem?.param === 'slots'
  return (
    <Modal opened onClose={onClose} title={`Slots of ${name}`}>
      <form onSubmit={submit} noValidate>
        <Stack gap="md">
          <TextInput
            label="Slots"
            description="How many requests it is given at a time. Leave it empty for what the engine or the settings say."
            inputMode="numeric"
            autoComplete="off"
            data-autofocus
            value={text}
            error={mistake ?? (atField ? problem.message : null)}
            onChange={(event) => setText(event.currentTarget.value)}
          />
          <ProblemNote problem={atField ? null : problem} />
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={pending}>
              Save
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  )
}
