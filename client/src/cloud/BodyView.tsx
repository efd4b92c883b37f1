import { SegmentedControl } from '@mantine/core'
import { useMemo, useState } from 'react'
import { blocksOf, piecesOf } from './body'
import classes from './cloud.module.css'

interface Props {
  body: string
  /** Texts that were found in it. */
  found: readonly string[]
}

const VIEWS = [
  { value: 'readable', label: 'To read' },
  { value: 'exact', label: 'To the letter' },
]

/** What would leave, all of it. */
export function BodyView({ body, found }: Props) {
  const [view, setView] = useState('readable')
  const blocks = useMemo(() => blocksOf(body), [body])
  return (
    <div className={classes.body}>
      <SegmentedControl
        size="xs"
        aria-label="How what would leave is shown"
        data={VIEWS}
        value={view}
        onChange={setView}
      />
      <section
        className={classes.bodyText}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must scroll by keyboard
        tabIndex={0}
        aria-label="What would leave"
        data-testid="cloud-body"
      >
        {view === 'exact' ? (
          <pre>{body}</pre>
        ) : (
          blocks.map(({ title, text }, at) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: they do not change
            <div key={at}>
              <h4>{title}</h4>
              <pre>
                <Marked text={text} found={found} />
              </pre>
            </div>
          ))
        )}
      </section>
    </div>
  )
}

function Marked({ text, found }: { text: string; found: readonly string[] }) {
  return piecesOf(text, found).map(({ text: piece, isFound }, at) =>
    // biome-ignore lint/suspicious/noArrayIndexKey: they do not change
    isFound ? <mark key={at}>{piece}</mark> : <span key={at}>{piece}</span>,
  )
}
