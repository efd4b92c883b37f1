import { createContext, useContext, useSyncExternalStore } from 'react'
import type { ConversationList } from './list'

export const ListContext = createContext<ConversationList | null>(null)

export function useList() {
  const store = useContext(ListContext)
  if (store === null) throw new Error('useList needs a ListContext above it')
  const list = useSyncExternalStore(store.subscribe, store.current)
  return { store, list }
}
