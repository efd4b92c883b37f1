import { useRef, useState } from 'react'
import { asProblem, type Problem } from '../api/errors'

interface ActionState {
  pending: boolean
  problem: Problem | null
}

/**
 * Runs something the user asked for: one at a time, with its problem kept for
 * showing. The returned function never rejects; it says whether it went well.
 */
export function useAction<A extends unknown[]>(action: (...args: A) => Promise<void>) {
  const [state, setState] = useState<ActionState>({ pending: false, problem: null })
  const running = useRef(false)

  const run = async (...args: A): Promise<boolean> => {
    if (running.current) return false
    running.current = true
    setState({ pending: true, problem: null })
    try {
      await action(...args)
      setState({ pending: false, problem: null })
      return true
    } catch (reason) {
      setState({ pending: false, problem: asProblem(reason) })
      return false
    } finally {
      running.current = false
    }
  }

  return [run, state] as const
}
