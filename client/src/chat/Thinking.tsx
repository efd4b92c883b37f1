import classes from './chat.module.css'

interface Props {
  text: string
  /** True while nothing else was said. */
  open: boolean
}

/** What a model thought before it answered, for who wants to know. */
export function Thinking({ text, open }: Props) {
  if (text === '') return null
  return (
    <details className={classes.thinking}>
      <summary>Thinking{open ? '…' : ''}</summary>
      <div>{text}</div>
    </details>
  )
}
