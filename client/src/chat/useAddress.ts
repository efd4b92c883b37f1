import { useEffect } from 'react'
import { useLocation } from 'wouter'
import { addressOf } from './ChatContext'
import type { ChatStore } from './store'

/**
 * Keeps address and conversation together. The address says which one is open; a new one gets its
 * address when its first question is stored.
 */
export function useAddress(store: ChatStore, asked: string | null, opened: string | null): void {
  const [, navigate] = useLocation()
  useEffect(() => {
    if (asked !== null) store.open(asked)
    else if (store.current().id !== null) store.clear()
  }, [store, asked])

  useEffect(() => {
    // Not `opened` itself: whoever has just gone to a new chat leaves the old one.
    const { id } = store.current()
    if (opened === null || id !== opened) return
    if (window.location.pathname === '/') navigate(addressOf(id), { replace: true })
  }, [store, opened, navigate])
}
