import { Button } from '@mantine/core'
import type { ReactNode } from 'react'
import type { Problem } from '../api/errors'
import { span } from './format'
import classes from './ui.module.css'

/** A sentence on what went wrong, read out at once, with what can be done about it beside it. */
export function ProblemFrame({ message, action }: { message: string; action?: ReactNode }) {
  return (
    <div className={classes.problem} role="alert">
      <span>{message}</span>
      {action}
    </div>
  )
}

interface Props {
  problem: Problem | null
  onRetry?: () => void
}

/** The server's sentence as it is, and when to try again if it says so. */
export function ProblemNote({ problem, onRetry }: Props) {
  if (problem === null) return null
  const { message, retryAfter } = problem
  const later = retryAfter === null ? '' : ` Try again in ${span(retryAfter * 1000)}.`
  const retry = onRetry && (
    <Button size="compact-sm" variant="default" onClick={onRetry}>
      Try again
    </Button>
  )
  return <ProblemFrame message={message + later} action={retry} />
}
