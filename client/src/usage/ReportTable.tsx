import { Table } from '@mantine/core'
import type { UsageReport, UsageTotal } from '../api/client'
import { count, longTime } from '../ui/format'
import classes from './usage.module.css'
import { costWords, energyWords, type Field, keyOf, labelOf, nameOf } from './words'

interface Props {
  report: UsageReport
  field: Field
}

const COLUMNS = ['Requests', 'Input', 'Output', 'GPU time', 'Energy', 'Cost']

/** A report in numbers, the newest day or the greatest user first. */
export function ReportTable({ report, field }: Props) {
  const rows = [...report.rows].sort((one, other) =>
    field === 'day' ? ((one.day ?? '') < (other.day ?? '') ? 1 : -1) : other.gpu_ms - one.gpu_ms,
  )
  return (
    <Table.ScrollContainer minWidth={620} className={classes.frame}>
      <Table className={classes.table} aria-label={`Usage by ${labelOf(field).toLowerCase()}`}>
        <Table.Thead>
          <Table.Tr>
            <Table.Th>{labelOf(field)}</Table.Th>
            {COLUMNS.map((column) => (
              <Table.Th key={column} className={classes.number}>
                {column}
              </Table.Th>
            ))}
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {rows.map((row) => (
            <Table.Tr key={keyOf(row, field)} data-testid="report-row">
              <Table.Th scope="row" className={classes.model} title={nameOf(row, field)}>
                {nameOf(row, field)}
              </Table.Th>
              <Numbers of={row} />
            </Table.Tr>
          ))}
        </Table.Tbody>
        {rows.length > 1 && (
          <Table.Tfoot>
            <Table.Tr>
              <Table.Th scope="row">Together</Table.Th>
              <Numbers of={report.total} />
            </Table.Tr>
          </Table.Tfoot>
        )}
      </Table>
    </Table.ScrollContainer>
  )
}

function Numbers({ of: row }: { of: UsageTotal }) {
  const cells = [
    count(row.requests),
    count(row.input_tokens),
    count(row.output_tokens),
    longTime(row.gpu_ms),
    energyWords(row),
    costWords(row),
  ]
  return cells.map((cell, column) => (
    <Table.Td
      key={COLUMNS[column]}
      className={classes.number}
      title={column === 5 && row.cost !== null ? row.cost : undefined}
    >
      {cell}
    </Table.Td>
  ))
}
