import { CopyButton } from './CopyButton'
import classes from './ui.module.css'

interface Props {
  text: string
  copyLabel: string
  testId?: string
  caption?: string
}

/** Text to be copied whole: a key, a link, a snippet. */
export function CopyBox({ text, copyLabel, testId, caption }: Props) {
  return (
    <figure className={classes.copyBox}>
      <figcaption>
        <span>{caption}</span>
        <CopyButton text={() => text} label={copyLabel} />
      </figcaption>
      <pre data-testid={testId}>{text}</pre>
    </figure>
  )
}
