import { useEffect } from 'react'

interface Refreshable {
  data: unknown
  problem: unknown
  reload: () => void
}

/** Loads again so long after each answer, while the page is visible; at once when it becomes visible. */
export function useRefreshed({ data, problem, reload }: Refreshable, everyMs: number): void {
  // biome-ignore lint/correctness/useExhaustiveDependencies: each answer, also a failure, begins the wait anew
  useEffect(() => {
    const look = () => {
      if (!document.hidden) reload()
    }
    const timer = setInterval(look, everyMs)
    document.addEventListener('visibilitychange', look)
    return () => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', look)
    }
  }, [data, problem, reload, everyMs])
}
