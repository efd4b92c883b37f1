import { Button, NativeSelect, TextInput } from '@mantine/core'
import { type SubmitEvent, useState } from 'react'
import { api, type NewApiKey, value } from '../api/client'
import { ProblemNote } from '../ui/ProblemNote'
import ui from '../ui/ui.module.css'
import { useAction } from '../ui/useAction'

const LIFETIMES = [
  { value: '', label: 'Never' },
  { value: '30', label: 'In 30 days' },
  { value: '90', label: 'In 90 days' },
  { value: '365', label: 'In 365 days' },
]

export function KeyForm({ onCreated }: { onCreated: (key: NewApiKey) => void }) {
  const [label, setLabel] = useState('')
  const [days, setDays] = useState('')
  const [create, { pending, problem }] = useAction(async () => {
    const body = { label: label.trim(), expires_in_days: days === '' ? null : Number(days) }
    onCreated(await value(api.POST('/api/keys', { body })))
    setLabel('')
  })

  const submit = (event: SubmitEvent<HTMLFormElement>) => {
    event.preventDefault()
    void create()
  }

  return (
    <>
      <form className={ui.formRow} onSubmit={submit}>
        <TextInput
          label="Label"
          placeholder="What will use it, for example: editor on the laptop"
          maxLength={100}
          value={label}
          onChange={(event) => setLabel(event.currentTarget.value)}
        />
        <NativeSelect
          label="Expires"
          data={LIFETIMES}
          value={days}
          onChange={(event) => setDays(event.currentTarget.value)}
        />
        <Button type="submit" loading={pending} disabled={label.trim() === ''}>
          Create key
        </Button>
      </form>
      <ProblemNote problem={problem} />
    </>
  )
}
