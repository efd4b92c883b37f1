import { Badge, Button, Table, Text } from '@mantine/core'
import { IconRefresh } from '@tabler/icons-react'
import { useState } from 'react'
import type { UsageRow } from '../api/client'
import { count, counted, dateTime, duration } from '../ui/format'
import { Loaded } from '../ui/Page'
import { Section } from '../ui/Section'
import { useResource } from '../ui/useResource'
import { listUsage } from './calls'
import classes from './usage.module.css'

/** One's newest requests, one by one. */
export function Latest() {
  const usage = useResource(listUsage)
  return (
    <Section
      title="Your latest requests"
      action={
        <Button
          size="xs"
          variant="default"
          leftSection={<IconRefresh size={15} />}
          loading={usage.loading && usage.data !== null}
          onClick={usage.reload}
        >
          Refresh
        </Button>
      }
    >
      <Loaded resource={usage}>
        {(rows) =>
          rows.length === 0 ? (
            <Text c="dimmed">You have not asked anything yet.</Text>
          ) : (
            <RequestList rows={rows} />
          )
        }
      </Loaded>
    </Section>
  )
}

const SHOWN_FIRST = 10

function RequestList({ rows }: { rows: UsageRow[] }) {
  const [all, setAll] = useState(false)
  return (
    <>
      <RequestTable rows={all ? rows : rows.slice(0, SHOWN_FIRST)} />
      {!all && rows.length > SHOWN_FIRST && (
        <Button size="xs" variant="default" mr="auto" onClick={() => setAll(true)}>
          Show the latest {rows.length}
        </Button>
      )}
    </>
  )
}

function RequestTable({ rows }: { rows: UsageRow[] }) {
  return (
    <Table.ScrollContainer minWidth={640} className={classes.frame}>
      <Table className={classes.table} aria-label="Your requests">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Started</Table.Th>
            <Table.Th>Model</Table.Th>
            <Table.Th className={classes.number}>Input</Table.Th>
            <Table.Th className={classes.number}>Output</Table.Th>
            <Table.Th className={classes.number}>Queue</Table.Th>
            <Table.Th className={classes.number}>First token</Table.Th>
            <Table.Th className={classes.number}>Total</Table.Th>
            <Table.Th>Outcome</Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <RequestRow key={row.request_id} row={row} />
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  )
}

function RequestRow({ row }: { row: UsageRow }) {
  const paused =
    row.pauses > 0
      ? `paused ${counted(row.pauses, 'time')} for ${duration(row.paused_ms)}`
      : undefined
  return (
    <Table.Tr data-testid="usage-row">
      <Table.Td>{dateTime(row.started_at)}</Table.Td>
      <Table.Td className={classes.model} title={`engine: ${row.engine}`}>
        {row.model}
      </Table.Td>
      <Table.Td className={classes.number}>{count(row.input_tokens)}</Table.Td>
      <Table.Td className={classes.number}>{count(row.output_tokens)}</Table.Td>
      <Table.Td className={classes.number}>{duration(row.queue_ms)}</Table.Td>
      <Table.Td className={classes.number}>
        {row.first_token_ms === null ? '–' : duration(row.first_token_ms)}
      </Table.Td>
      <Table.Td className={classes.number} title={paused}>
        {duration(row.total_ms)}
      </Table.Td>
      <Table.Td>
        <Outcome of={row.outcome} />
      </Table.Td>
    </Table.Tr>
  )
}

/** Only what went another way than planned catches the eye. */
function Outcome({ of: outcome }: { of: UsageRow['outcome'] }) {
  if (outcome === 'completed') return outcome
  return <Badge color={outcome === 'failed' ? 'red' : 'gray'}>{outcome}</Badge>
}
