import { Button } from '@mantine/core'
import { useEffect, useState } from 'react'
import type { Problem } from '../api/errors'
import { span } from '../ui/format'
import { ProblemFrame } from '../ui/ProblemNote'

interface Props {
  problem: Problem
  onRetry: (() => void) | null
}

/** Nobody watches a button for longer, and an admin may lift the limit meanwhile. */
const COUNTED_S_MAX = 600

/** Why the answer ended early, under the text so far. */
export function AnswerProblem({ problem, onRetry }: Props) {
  const seconds = problem.retryAfter ?? 0
  const left = useCountdown(seconds > COUNTED_S_MAX ? 0 : seconds)
  const retry = onRetry !== null && (
    <Button size="compact-sm" variant="default" disabled={left > 0} onClick={onRetry}>
      {left > 0 ? `Try again in ${span(left * 1000)}` : 'Try again'}
    </Button>
  )
  return <ProblemFrame message={problem.message} action={retry} />
}

function useCountdown(from: number): number {
  const [left, setLeft] = useState(from)
  useEffect(() => {
    // Measured against the clock: timers of a background tab run late.
    const end = performance.now() + from * 1000
    const tick = () => setLeft(Math.max(0, Math.ceil((end - performance.now()) / 1000)))
    tick()
    if (from === 0) return
    const timer = setInterval(tick, 1000)
    return () => clearInterval(timer)
  }, [from])
  return left
}
