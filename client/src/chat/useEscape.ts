import { useEffect } from 'react'

/** Calls `action` on Escape while `active`, unless an open menu, a dialog or a field has the key first. */
export function useEscape(active: boolean, action: () => void): void {
  useEffect(() => {
    if (!active) return
    const onKeyDown = (event: KeyboardEvent) => {
      if (event.key !== 'Escape' || event.isComposing) return
      if (document.activeElement?.closest('[data-keeps-escape]')) return
      if (document.querySelector('[role="menu"], [role="dialog"]') === null) action()
    }
    // Captured, to look before the menu has closed itself.
    window.addEventListener('keydown', onKeyDown, { capture: true })
    return () => window.removeEventListener('keydown', onKeyDown, { capture: true })
  }, [active, action])
}
