import { Title } from '@mantine/core'
import { useDocumentTitle } from '@mantine/hooks'
import type { ReactNode } from 'react'
import { Mark } from './Mark'
import classes from './ui.module.css'

/** The frame of the pages in front of the app: log in and set up. */
export function DoorPage({ title, children }: { title: string; children: ReactNode }) {
  useDocumentTitle(`${title} · WIRTHFORGE`)
  return (
    <main className={classes.door}>
      <div className={classes.doorCard}>
        <div className={classes.brand}>
          <Mark size={26} />
          WIRTHFORGE
        </div>
        <Title order={1} size="h3">
          {title}
        </Title>
        {children}
      </div>
    </main>
  )
}
