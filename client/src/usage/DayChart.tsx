import type { UsageReport } from '../api/client'
import { daysBetween, longDay, shortDay } from './days'
import classes from './usage.module.css'
import type { measureOf } from './words'

interface Props {
  /** By day. */
  report: UsageReport
  measure: ReturnType<typeof measureOf>
}

/** So few bars have room for a gap between them. */
const SPACED_MAX = 120

/** A bar for each day, the tallest as high as there is room. The table says the same in numbers. */
export function DayChart({ report, measure }: Props) {
  const byDay = new Map(report.rows.map((row) => [row.day, row]))
  const days = daysBetween(report.from, report.to)
  const tallest = Math.max(...report.rows.map(measure.of), 0)
  const top = report.rows.find((row) => measure.of(row) === tallest)
  const most = top === undefined || tallest === 0 ? null : measure.words(top)
  const label = `${measure.label} by day, ${longDay(report.from)} to ${longDay(report.to)}`
  return (
    <figure className={classes.chart}>
      <div
        className={classes.bars}
        data-spaced={days.length <= SPACED_MAX || undefined}
        role="img"
        aria-label={most === null ? `${label}: nothing` : `${label}, at most ${most} a day`}
        data-testid="day-chart"
      >
        {days.map((day) => {
          const row = byDay.get(day)
          const part = row === undefined || tallest === 0 ? 0 : measure.of(row) / tallest
          const words = row === undefined ? 'nothing' : measure.words(row)
          return (
            <div key={day} className={classes.day} title={`${longDay(day)}: ${words}`}>
              <i style={{ height: `${part * 100}%` }} data-some={part > 0 || undefined} />
            </div>
          )
        })}
      </div>
      <figcaption aria-hidden="true">
        <span>{shortDay(report.from)}</span>
        <span>{most === null ? 'nothing' : `at most ${most} a day`}</span>
        <span>{shortDay(report.to)}</span>
      </figcaption>
    </figure>
  )
}
