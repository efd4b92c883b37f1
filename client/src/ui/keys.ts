import type { KeyboardEvent } from 'react'

/** Enter alone. One that ends a composed character (Japanese, Chinese, …) is not a send. */
export const isSend = ({ key, shiftKey, nativeEvent }: KeyboardEvent) =>
  key === 'Enter' && !shiftKey && !nativeEvent.isComposing
