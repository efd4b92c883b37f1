import { createContext, useContext, useSyncExternalStore } from 'react'
import type { ChatStore } from './store'

export const ChatContext = createContext<ChatStore | null>(null)

/** The store alone, for components that need not follow every token. */
export function useChatStore(): ChatStore {
  const store = useContext(ChatContext)
  if (store === null) throw new Error('useChatStore needs a ChatContext above it')
  return store
}

/** Changes only when a conversation starts or is cleared. */
export function useChatIsEmpty(): boolean {
  const store = useChatStore()
  return useSyncExternalStore(store.subscribe, () => store.current().exchanges.length === 0)
}

export function useChat() {
  const store = useChatStore()
  const conversation = useSyncExternalStore(store.subscribe, store.current)
  return { store, conversation }
}
