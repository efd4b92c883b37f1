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
  return useSyncExternalStore(store.subscribe, () => {
    const { id, exchanges } = store.current()
    return id === null && exchanges.length === 0
  })
}

/** The address of the conversation that is open. */
export function useChatAddress(): string {
  const store = useChatStore()
  const id = useSyncExternalStore(store.subscribe, () => store.current().id)
  return id === null ? '/' : addressOf(id)
}

export const addressOf = (id: string) => `/chat/${id}`

/** The addresses of the chat; what is in brackets is the conversation's id. */
export const CHAT_ROUTE = /^\/(?:chat\/([^/]+)\/?)?$/

export function useChat() {
  const store = useChatStore()
  const conversation = useSyncExternalStore(store.subscribe, store.current)
  return { store, conversation }
}
