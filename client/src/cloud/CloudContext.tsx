import { createContext, type ReactNode, useContext, useMemo } from 'react'
import { useResource } from '../ui/useResource'
import { readStanding } from './calls'
import type { Standing } from './wire'

interface Cloud {
  /** Null until it is known, and where it cannot be. */
  standing: Standing | null
  reload: () => void
}

const Context = createContext<Cloud>({ standing: null, reload: () => undefined })

/** What may leave of this person's requests, for the chat. */
export function CloudProvider({ children }: { children: ReactNode }) {
  const { data, reload } = useResource(readStanding)
  const cloud = useMemo(() => ({ standing: data, reload }), [data, reload])
  return <Context value={cloud}>{children}</Context>
}

export const useCloud = () => useContext(Context)
