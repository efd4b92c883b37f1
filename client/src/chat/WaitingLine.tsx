import { useEffect, useState } from 'react'
import classes from './chat.module.css'

/** Says the truth about the time before the first token: how long it has been. */
export function WaitingLine({ since }: { since: number }) {
  const [seconds, setSeconds] = useState(0)
  useEffect(() => {
    const tick = () => setSeconds(Math.floor((performance.now() - since) / 1000))
    tick()
    const timer = setInterval(tick, 1000)
    return () => clearInterval(timer)
  }, [since])
  return (
    <p className={classes.waiting}>
      Waiting for the first token… <span aria-hidden="true">{seconds} s</span>
    </p>
  )
}
