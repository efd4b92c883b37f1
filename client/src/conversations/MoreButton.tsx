import { Button } from '@mantine/core'
import { useEffect, useRef } from 'react'

interface Props {
  loading: boolean
  onMore: () => void
}

/** Asks for more when it is scrolled into view, or pressed where nothing tells of that. */
export function MoreButton({ loading, onMore }: Props) {
  const button = useRef<HTMLButtonElement>(null)
  useEffect(() => {
    const element = button.current
    if (element === null || loading || !('IntersectionObserver' in window)) return
    const observer = new IntersectionObserver((entries) => {
      if (entries.some(({ isIntersecting }) => isIntersecting)) onMore()
    })
    observer.observe(element)
    return () => observer.disconnect()
  }, [loading, onMore])
  return (
    <Button
      ref={button}
      variant="subtle"
      color="gray"
      size="xs"
      fullWidth
      loading={loading}
      onClick={onMore}
    >
      Show more
    </Button>
  )
}
