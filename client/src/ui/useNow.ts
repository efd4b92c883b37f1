import { useEffect, useState } from 'react'

/** The time on the clock of `performance.now()`, looked at once a second; 0 stops looking. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = useState(() => performance.now())
  useEffect(() => {
    if (everyMs === 0) return
    const tick = () => setNow(performance.now())
    tick()
    const timer = setInterval(tick, everyMs)
    return () => clearInterval(timer)
  }, [everyMs])
  return now
}
