import { Progress, Text } from '@mantine/core'
import type { BudgetShare } from '../api/client'
import { labelOf } from '../quotas/limits'
import { count, span } from '../ui/format'
import classes from './sharing.module.css'

interface Props {
  budgets: readonly BudgetShare[]
  /** Since the server told. */
  passedMs: number
}

export function BudgetList({ budgets, passedMs }: Props) {
  if (budgets.length === 0) {
    return <Text c="dimmed">You have none: use as much as you like.</Text>
  }
  return (
    <ul className={classes.budgets}>
      {budgets.map((budget) => (
        <BudgetRow key={budget.name} budget={budget} passedMs={passedMs} />
      ))}
    </ul>
  )
}

function BudgetRow({ budget, passedMs }: { budget: BudgetShare; passedMs: number }) {
  const { name, limit, used, resets_in_ms } = budget
  const label = labelOf(name)
  const spent = used >= limit
  return (
    <li data-testid="budget">
      <div className={classes.budgetLine}>
        <Text size="sm" fw={550}>
          {label}
        </Text>
        <Text size="sm" className={classes.figures}>
          {count(used)} of {count(limit)}
        </Text>
      </div>
      <Progress
        value={Math.min(100, (used / Math.max(1, limit)) * 100)}
        aria-label={label}
        size="sm"
        {...(spent ? { color: 'red' } : {})}
      />
      <Text size="xs" c="dimmed">
        {spent ? 'used up, ' : ''}resets in {span(resets_in_ms - passedMs)}
      </Text>
    </li>
  )
}
