import { IconCloud } from '@tabler/icons-react'
import classes from './cloud.module.css'
import type { Mark } from './wire'

/** Stands at the foot of an answer that a cloud gave. */
export function CloudMark({ mark }: { mark: Mark }) {
  const { provider, model, form } = mark
  return (
    <span className={classes.mark} data-testid="cloud-mark">
      <IconCloud size={14} aria-hidden="true" className={classes.markIcon} /> answered by {model} at{' '}
      {provider}
      {form === 'pseudonymised' && ', asked with other words in the place of personal data'}
    </span>
  )
}

/** Other words that stayed in the answer. */
export function Unrestored({ words }: { words: readonly string[] }) {
  if (words.length === 0) return null
  return (
    <p className={classes.unrestored} data-testid="unrestored">
      In this answer stand words that were put in the place of yours, and nobody could put yours
      back:{' '}
      {words.map((word, at) => (
        <span key={word}>
          {at > 0 && ', '}
          <mark>{word}</mark>
        </span>
      ))}
    </p>
  )
}
