import { useCallback, useEffect, useState } from 'react'
import { asProblem, type Problem } from '../api/errors'

interface ResourceState<T> {
  data: T | null
  problem: Problem | null
  loading: boolean
}

/**
 * Something the server knows, loaded when the component appears. `load` must
 * keep its identity between renders. A reload keeps the old data on screen.
 */
export function useResource<T>(load: () => Promise<T>) {
  const [state, setState] = useState<ResourceState<T>>({ data: null, problem: null, loading: true })
  const [round, setRound] = useState(0)

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new round is the request to load again
  useEffect(() => {
    let current = true
    setState((old) => ({ ...old, loading: true }))
    load().then(
      (data) => current && setState({ data, problem: null, loading: false }),
      (reason) =>
        current && setState((old) => ({ ...old, problem: asProblem(reason), loading: false })),
    )
    return () => {
      current = false
    }
  }, [load, round])

  const reload = useCallback(() => setRound((n) => n + 1), [])
  return { ...state, reload }
}
