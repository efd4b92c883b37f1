import { Group, Skeleton, Stack, Text, Title } from '@mantine/core'
import { useDocumentTitle } from '@mantine/hooks'
import type { ReactNode } from 'react'
import type { Problem } from '../api/errors'
import { ProblemNote } from './ProblemNote'
import classes from './ui.module.css'

interface Props {
  title: string
  /** One or two sentences on what the page is for. */
  lead?: ReactNode
  /** Stands at the right of the title. */
  action?: ReactNode
  children: ReactNode
}

export function Page({ title, lead, action, children }: Props) {
  useDocumentTitle(`${title} · WIRTHFORGE`)
  return (
    <main className={classes.page}>
      <Group justify="space-between" align="center" gap="xs">
        <Title order={1} size="h3">
          {title}
        </Title>
        {action}
      </Group>
      {lead !== undefined && (
        <Text size="sm" c="dimmed" maw="62ch">
          {lead}
        </Text>
      )}
      {children}
    </main>
  )
}

interface LoadedProps<T> {
  resource: { data: T | null; problem: Problem | null; reload: () => void }
  children: (data: T) => ReactNode
}

/** The three faces of a resource: not there yet, not to be had, there. */
export function Loaded<T>({ resource, children }: LoadedProps<T>) {
  const { data, problem, reload } = resource
  return (
    <Stack gap="md">
      <ProblemNote problem={problem} onRetry={reload} />
      {data !== null && children(data)}
      {data === null && problem === null && (
        <Stack gap="xs" role="status" aria-label="Loading">
          <Skeleton h={44} />
          <Skeleton h={44} />
          <Skeleton h={44} />
        </Stack>
      )}
    </Stack>
  )
}
