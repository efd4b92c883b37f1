import { useLocalStorage, useMediaQuery } from '@mantine/hooks'
import { createContext, type ReactNode, useCallback, useContext, useMemo, useState } from 'react'

interface Sidebar {
  isOpen: boolean
  /** True where it lies over the chat instead of beside it. */
  isDrawer: boolean
  toggle: () => void
  /** Closes the drawer; beside the chat it stays as it is. */
  close: () => void
}

/** Below this there is no room for a list beside the text. */
const NARROW = '(max-width: 720px)'

const Context = createContext<Sidebar | null>(null)

/** Whether the conversations are shown; beside the chat this is remembered. */
export function SidebarProvider({ children }: { children: ReactNode }) {
  const isDrawer = useMediaQuery(NARROW, false, { getInitialValueInEffect: false })
  const [isPulled, setPulled] = useState(false)
  const [isShown, setShown] = useLocalStorage({
    key: 'wirthforge.sidebar',
    defaultValue: true,
    getInitialValueInEffect: false,
  })
  const toggle = useCallback(
    () => (isDrawer ? setPulled((open) => !open) : setShown((open) => !open)),
    [isDrawer, setShown],
  )
  const close = useCallback(() => setPulled(false), [])
  const sidebar = useMemo(
    () => ({ isOpen: isDrawer ? isPulled : isShown, isDrawer, toggle, close }),
    [isDrawer, isPulled, isShown, toggle, close],
  )
  return <Context value={sidebar}>{children}</Context>
}

export function useSidebar(): Sidebar {
  const sidebar = useContext(Context)
  if (sidebar === null) throw new Error('useSidebar needs a SidebarProvider above it')
  return sidebar
}
