import { cleanup, configure } from '@testing-library/react'
import { afterEach } from 'vitest'

// jsdom has no layout, so it lacks what watches it; Mantine asks for all three.
class NoResizes implements ResizeObserver {
  observe() {}
  unobserve() {}
  disconnect() {}
}
window.ResizeObserver = NoResizes
Object.defineProperty(document, 'fonts', { value: new EventTarget() })
window.matchMedia = (media) =>
  Object.assign(new EventTarget(), {
    media,
    matches: media === '(pointer: fine)',
    onchange: null,
    addListener() {},
    removeListener() {},
  })

// Pages load on demand; on a busy machine the first one takes longer than a second.
configure({ asyncUtilTimeout: 8000 })

afterEach(() => {
  cleanup()
  window.localStorage.clear()
  window.history.replaceState(null, '', '/')
})
