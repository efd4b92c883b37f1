import { useEffect, useRef, useState } from 'react'

/** The value, but changing at most once in `everyMs`: for ears, which cannot skip a line. */
export function useSlowly<T>(value: T, everyMs: number): T {
  const [shown, setShown] = useState(value)
  const changedAt = useRef(Number.NEGATIVE_INFINITY)
  useEffect(() => {
    if (value === shown) return
    const change = () => {
      changedAt.current = performance.now()
      setShown(value)
    }
    const timer = setTimeout(change, Math.max(0, changedAt.current + everyMs - performance.now()))
    return () => clearTimeout(timer)
  }, [value, shown, everyMs])
  return shown
}
