import { useCallback, useEffect, useRef, useState } from 'react'

/** Nearer to the end than this counts as being there. */
const NEAR_PX = 40

/**
 * Keeps a scrolling element at its end while its content grows, until the
 * reader scrolls up; coming back to the end, or `jump`, takes it up again. What
 * does not `grow` when it appears begins at its beginning.
 */
export function useStickToBottom(grows = true) {
  const scroller = useRef<HTMLDivElement>(null)
  const content = useRef<HTMLDivElement>(null)
  const [stuck, setStuck] = useState(grows)
  const following = useRef(grows)

  const follow = useCallback((value: boolean) => {
    following.current = value
    setStuck(value)
  }, [])

  const jump = useCallback(() => {
    follow(true)
    const element = scroller.current
    if (element !== null) element.scrollTop = element.scrollHeight
  }, [follow])

  useEffect(() => {
    const element = scroller.current
    const inner = content.current
    if (element === null || inner === null) return

    let lastTop = element.scrollTop
    const onScroll = () => {
      const { scrollTop, scrollHeight, clientHeight } = element
      const near = scrollHeight - scrollTop - clientHeight < NEAR_PX
      // Growth moves the end away without moving the reader: only a move up lets go.
      if (near) follow(true)
      else if (scrollTop < lastTop) follow(false)
      lastTop = scrollTop
    }
    const observer = new ResizeObserver(() => {
      if (following.current) element.scrollTop = element.scrollHeight
    })
    element.addEventListener('scroll', onScroll, { passive: true })
    observer.observe(inner)
    observer.observe(element)
    return () => {
      element.removeEventListener('scroll', onScroll)
      observer.disconnect()
    }
  }, [follow])

  return { scroller, content, stuck, jump }
}
