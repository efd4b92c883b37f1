import { Group, Title } from '@mantine/core'
import type { ReactNode } from 'react'
import classes from './ui.module.css'

interface Props {
  title: string
  /** Stands at the right of the title. */
  action?: ReactNode
  children: ReactNode
}

/** A part of a page under a heading of its own. */
export function Section({ title, action, children }: Props) {
  return (
    <section className={classes.section} aria-label={title}>
      <Group justify="space-between" align="center" gap="xs">
        <Title order={2} size="h5">
          {title}
        </Title>
        {action}
      </Group>
      {children}
    </section>
  )
}
