import { useEffect, useState, useSyncExternalStore } from 'react'
import { ShareFeed } from './feed'

/** The share, as long as the component is there. */
export function useShare() {
  const [feed] = useState(() => new ShareFeed())
  useEffect(() => {
    feed.start()
    return feed.stop
  }, [feed])
  const state = useSyncExternalStore(feed.subscribe, feed.current)
  const reload = () => {
    feed.stop()
    feed.start()
  }
  return { ...state, reload }
}
