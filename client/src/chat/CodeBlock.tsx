import { type ComponentProps, isValidElement, useRef } from 'react'
import { CopyButton } from '../ui/CopyButton'
import classes from './markdown.module.css'

/** Takes the place of `pre`: the code with its language and a copy button above. */
export function CodeBlock({ children }: ComponentProps<'pre'>) {
  const pre = useRef<HTMLPreElement>(null)
  return (
    <div className={classes.code}>
      <div className={classes.codeHead}>
        <span>{languageOf(children)}</span>
        <CopyButton compact label="Copy code" text={() => pre.current?.textContent ?? ''} />
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: long lines scroll, also from the keyboard */}
      <pre ref={pre} tabIndex={0}>
        {children}
      </pre>
    </div>
  )
}

function languageOf(code: unknown): string {
  if (!isValidElement<{ className?: string }>(code)) return 'text'
  return /language-(\S+)/.exec(code.props.className ?? '')?.[1] ?? 'text'
}
