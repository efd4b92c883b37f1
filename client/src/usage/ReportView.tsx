import { Button, Group, NativeSelect, SegmentedControl, Text } from '@mantine/core'
import { IconDownload } from '@tabler/icons-react'
import { useCallback, useState } from 'react'
import { Link } from 'wouter'
import type { UsageReport, UsageTotal } from '../api/client'
import { count, longTime } from '../ui/format'
import { Loaded } from '../ui/Page'
import { useResource } from '../ui/useResource'
import { fileOf, readReport } from './calls'
import { DayChart } from './DayChart'
import { type Range, rangeOf, rangeProblem } from './days'
import { type Picked, RangePicker } from './RangePicker'
import { ReportTable } from './ReportTable'
import classes from './usage.module.css'
import {
  costWords,
  energyWords,
  type Field,
  fieldsFor,
  labelOf,
  MEASURES,
  type Metric,
  measureOf,
  remarksOf,
} from './words'

const BEGIN: Picked = { name: '30', ...(rangeOf('30') as Range) }

/** What was used in some days: together, by day, and by whatever is chosen. */
export function ReportView({ everybody }: { everybody: boolean }) {
  const [picked, setPicked] = useState(BEGIN)
  const [field, setField] = useState<Field>(everybody ? 'user' : 'model')
  // A range that is being typed asks for nothing.
  const [asked, setAsked] = useState<Range>(BEGIN)
  const pick = (range: Picked) => {
    setPicked(range)
    if (rangeProblem(range) === null) setAsked({ first: range.first, last: range.last })
  }
  const { first, last } = asked
  const loadDays = useCallback(
    () => readReport({ everybody, by: 'day', first, last }),
    [everybody, first, last],
  )
  const days = useResource(loadDays)
  return (
    <>
      <Group gap="xs">
        <RangePicker picked={picked} onPick={pick} />
        {days.loading && days.data !== null && (
          <Text size="xs" c="dimmed" role="status">
            Adding up…
          </Text>
        )}
      </Group>
      <Loaded resource={days}>
        {(report) => (
          <>
            <Totals total={report.total} />
            {report.total.requests === 0 ? (
              <Text c="dimmed">Nothing was used in these days.</Text>
            ) : (
              <>
                <Chart report={report} />
                <Groups everybody={everybody} range={asked} field={field} onField={setField} />
                <Remarks total={report.total} isAdmin={everybody} />
              </>
            )}
          </>
        )}
      </Loaded>
    </>
  )
}

function Totals({ total }: { total: UsageTotal }) {
  const facts = [
    ['Requests', count(total.requests)],
    ['Input tokens', count(total.input_tokens)],
    ['Output tokens', count(total.output_tokens)],
    ['GPU time', longTime(total.gpu_ms)],
    ['Energy', energyWords(total)],
    ['Cost', costWords(total)],
  ]
  return (
    <dl className={classes.totals} data-testid="usage-totals">
      {facts.map(([term, fact]) => (
        <div key={term}>
          <dt>{term}</dt>
          <dd>{fact}</dd>
        </div>
      ))}
    </dl>
  )
}

function Chart({ report }: { report: UsageReport }) {
  const [metric, setMetric] = useState<Metric>('tokens')
  return (
    <div className={classes.chartFrame}>
      <SegmentedControl
        size="xs"
        aria-label="What the bars show"
        data={MEASURES.map(({ value, label }) => ({ value, label }))}
        value={metric}
        onChange={(value) => setMetric(value as Metric)}
      />
      <DayChart report={report} measure={measureOf(metric)} />
    </div>
  )
}

interface GroupsProps {
  everybody: boolean
  range: Range
  field: Field
  onField: (field: Field) => void
}

function Groups({ everybody, range, field, onField }: GroupsProps) {
  const { first, last } = range
  const load = useCallback(async () => {
    const asked = { everybody, by: field, first, last }
    return { field, report: await readReport(asked) }
  }, [everybody, field, first, last])
  const groups = useResource(load)
  const asked = { everybody, by: field, first, last }
  return (
    <>
      <Group justify="space-between" gap="xs">
        <Group gap={6}>
          <Text size="sm" component="label" htmlFor="usage-by">
            By
          </Text>
          <NativeSelect
            id="usage-by"
            size="xs"
            data={fieldsFor(everybody).map((value) => ({ value, label: labelOf(value) }))}
            value={field}
            onChange={(event) => onField(event.currentTarget.value as Field)}
          />
        </Group>
        <Group gap={6}>
          {(['csv', 'parquet'] as const).map((format) => (
            <Button
              key={format}
              component="a"
              size="xs"
              variant="default"
              href={fileOf(asked, format)}
              download
              aria-label={`Download as ${format === 'csv' ? 'CSV' : 'Parquet'}`}
              leftSection={<IconDownload size={14} />}
            >
              {format === 'csv' ? 'CSV' : 'Parquet'}
            </Button>
          ))}
        </Group>
      </Group>
      <Loaded resource={groups}>
        {({ field: shown, report }) => <ReportTable report={report} field={shown} />}
      </Loaded>
    </>
  )
}

/** Why a sum is smaller than one may think. */
function Remarks({ total, isAdmin }: { total: UsageTotal; isAdmin: boolean }) {
  return remarksOf(total).map(({ about, text }) => (
    <Text key={about} size="sm" c="dimmed">
      {text} {about === 'cost' && isAdmin && <Link href="/usage/prices">Set prices</Link>}
    </Text>
  ))
}
