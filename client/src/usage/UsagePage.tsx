import { Badge, Button, Table, Text } from '@mantine/core'
import { IconRefresh } from '@tabler/icons-react'
import { api, type UsageRow, value } from '../api/client'
import { count, counted, dateTime, duration } from '../ui/format'
import { Loaded, Page } from '../ui/Page'
import { useResource } from '../ui/useResource'
import { type Totals, totalsOf } from './totals'
import classes from './usage.module.css'

const listUsage = () => value(api.GET('/api/usage'))

export default function UsagePage() {
  const usage = useResource(listUsage)
  return (
    <Page
      title="Usage"
      lead="Your latest requests, at most 100. Only counts and times are kept here, not what was asked or answered."
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
            <>
              <TotalsLine totals={totalsOf(rows)} />
              <UsageTable rows={rows} />
            </>
          )
        }
      </Loaded>
    </Page>
  )
}

function TotalsLine({ totals }: { totals: Totals }) {
  return (
    <dl className={classes.totals} data-testid="usage-totals">
      <div>
        <dt>Requests</dt>
        <dd>{count(totals.requests)}</dd>
      </div>
      <div>
        <dt>Input tokens</dt>
        <dd>{count(totals.input)}</dd>
      </div>
      <div>
        <dt>Output tokens</dt>
        <dd>{count(totals.output)}</dd>
      </div>
    </dl>
  )
}

function UsageTable({ rows }: { rows: UsageRow[] }) {
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
            <Table.Tr key={row.request_id} data-testid="usage-row">
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
              <Table.Td
                className={classes.number}
                title={
                  row.pauses > 0
                    ? `paused ${counted(row.pauses, 'time')} for ${duration(row.paused_ms)}`
                    : undefined
                }
              >
                {duration(row.total_ms)}
              </Table.Td>
              <Table.Td>
                <Outcome of={row.outcome} />
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  )
}

/** Only what went another way than planned catches the eye. */
function Outcome({ of: outcome }: { of: UsageRow['outcome'] }) {
  if (outcome === 'completed') return outcome
  return <Badge color={outcome === 'failed' ? 'red' : 'gray'}>{outcome}</Badge>
}
