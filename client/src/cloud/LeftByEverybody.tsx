import { Group, Table, Text } from '@mantine/core'
import { useCallback, useState } from 'react'
import { binary, count } from '../ui/format'
import { Loaded } from '../ui/Page'
import { useResource } from '../ui/useResource'
import { longDay, type Range, rangeOf, rangeProblem } from '../usage/days'
import { type Picked, RangePicker } from '../usage/RangePicker'
import { sumDepartures } from './calls'
import classes from './cloud.module.css'
import type { DepartureCount } from './wire'
import { micros } from './words'

const BEGIN: Picked = { name: '30', ...(rangeOf('30') as Range) }

/** How much left, by day, provider and person. Days are UTC's. */
export function LeftByEverybody() {
  const [picked, setPicked] = useState(BEGIN)
  const [asked, setAsked] = useState<Range>(BEGIN)
  const pick = (range: Picked) => {
    setPicked(range)
    if (rangeProblem(range) === null) setAsked({ first: range.first, last: range.last })
  }
  const { first, last } = asked
  const load = useCallback(() => sumDepartures(first, last), [first, last])
  const summary = useResource(load)
  return (
    <>
      <Group gap="xs">
        <RangePicker picked={picked} onPick={pick} />
      </Group>
      <Loaded resource={summary}>
        {({ rows }) =>
          rows.length === 0 ? (
            <Text c="dimmed">Nothing left this box in these days.</Text>
          ) : (
            <CountTable rows={rows} />
          )
        }
      </Loaded>
    </>
  )
}

const COLUMNS = ['Requests', 'Pseudonymised', 'After a yes', 'With findings', 'Sent', 'Cost']

function CountTable({ rows }: { rows: DepartureCount[] }) {
  return (
    <Table.ScrollContainer minWidth={760} className={classes.frame}>
      <Table className={classes.table} aria-label="What left, by day, provider and person">
        <Table.Thead>
          <Table.Tr>
            <Table.Th>Day</Table.Th>
            <Table.Th>Person</Table.Th>
            <Table.Th>Provider</Table.Th>
            {COLUMNS.map((column) => (
              <Table.Th key={column} className={classes.number}>
                {column}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <Table.Tr
              key={`${row.day} ${row.provider} ${row.user_id}`}
              data-testid="departure-count"
            >
              <Table.Td>{longDay(row.day)}</Table.Td>
              <Table.Td>{row.user ?? 'somebody who is gone'}</Table.Td>
              <Table.Td>{row.provider}</Table.Td>
              {[
                count(row.requests),
                count(row.pseudonymised),
                count(row.consented),
                count(row.findings),
                binary(row.body_bytes),
                micros(row.spent_micros),
              ].map((cell, column) => (
                <Table.Td key={COLUMNS[column]} className={classes.number}>
                  {cell}
                </Table.Td>
              ))}
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  )
}
