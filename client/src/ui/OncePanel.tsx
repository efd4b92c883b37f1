import { Button, Text } from '@mantine/core'
import type { ReactNode } from 'react'
import classes from './ui.module.css'

interface Props {
  title: string
  /** Why it has to be copied now. */
  note: string
  children: ReactNode
  onClose: () => void
}

/** Something the server tells only this once: a key, a set-up link. */
export function OncePanel({ title, note, children, onClose }: Props) {
  return (
    <section className={classes.once} aria-label={title}>
      <div role="status">
        <Text fw={650}>{title}</Text>
        <Text size="sm">{note}</Text>
      </div>
      {children}
      <Button size="xs" variant="default" ml="auto" onClick={onClose}>
        I have copied it
      </Button>
    </section>
  )
}
