import { ActionIcon, Button, Tooltip } from '@mantine/core'
import { IconAlertTriangle, IconCheck, IconCopy } from '@tabler/icons-react'
import { useEffect, useState } from 'react'
import { copyText } from './copy'

interface Props {
  /** Read when the button is pressed, so that a long text need not travel as a property. */
  text: () => string
  /** What is copied: "Copy answer", "Copy code". */
  label: string
  compact?: boolean
}

type Phase = 'idle' | 'copied' | 'failed'
const icons = { idle: IconCopy, copied: IconCheck, failed: IconAlertTriangle }
const SHOWN_MS = 1600

export function CopyButton({ text, label, compact = false }: Props) {
  const [phase, setPhase] = useState<Phase>('idle')
  useEffect(() => {
    if (phase === 'idle') return
    const timer = setTimeout(() => setPhase('idle'), SHOWN_MS)
    return () => clearTimeout(timer)
  }, [phase])

  const copy = async () => setPhase((await copyText(text())) ? 'copied' : 'failed')
  const words = { idle: label, copied: 'Copied', failed: 'Select it and copy by hand' }[phase]
  const Icon = icons[phase]
  if (compact) {
    return (
      <Tooltip label={words}>
        <ActionIcon variant="subtle" color="gray" size="sm" aria-label={words} onClick={copy}>
          <Icon size={15} />
        </ActionIcon>
      </Tooltip>
    )
  }
  return (
    <Button size="xs" variant="default" leftSection={<Icon size={15} />} onClick={copy}>
      {words}
    </Button>
  )
}
