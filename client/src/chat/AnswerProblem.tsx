import { Button } from '@mantine/core'
import { useEffect, useState } from 'react'
import type { Problem } from '../api/errors'
import { ProblemFrame } from '../ui/ProblemNote'

interface Props {
  problem: Problem
  onRetry: (() => void) | null
}

/** Why the answer ended early, under the text so far. */
export function AnswerProblem({ problem, onRetry }: Props) {
  const left = useCountdown(problem.retryAfter ?? 0)
  const retry = onRetry !== null && (
    <Button size="compact-sm" variant="default" disabled={left > 0} onClick={onRetry}>
      {left > 0 ? `Try again in ${left} s` : 'Try again'}
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
