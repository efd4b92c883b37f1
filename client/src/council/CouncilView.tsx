import { UnstyledButton } from '@mantine/core'
import { IconChevronRight, IconUsersGroup } from '@tabler/icons-react'
import { useId, useState } from 'react'
import { useChatStore } from '../chat/ChatContext'
import { Thinking } from '../chat/Thinking'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import type { Chair, Council } from './council'
import classes from './council.module.css'
import { Members } from './Members'
import {
  chairWords,
  foldedWords,
  fullSizeWords,
  reasonWords,
  sizeWords,
  stepWords,
  strategyWords,
} from './words'

interface Props {
  council: Council
  /** True while the answer is not there yet. */
  running: boolean
  /** True when the answer is whole. */
  complete: boolean
  /** True when a final answer stands below. */
  answered: boolean
}

/** The members at work. Once the final answer is there they fold into one line. */
export function CouncilView({ council, running, complete, answered }: Props) {
  const [opened, setOpened] = useState<boolean | null>(null)
  const open = opened ?? (running || !answered)
  const id = useId()
  const reason = reasonWords(council)
  return (
    <section
      className={classes.council}
      aria-label="Council"
      data-testid="council"
      data-open={open || undefined}
      // Two columns fit where the answer stands; more take the width of the page.
      data-wide={(open && council.members.length > 2) || undefined}
    >
      {running ? (
        <p className={classes.head}>
          <IconUsersGroup size={17} aria-hidden="true" />
          <span data-testid="council-size">
            <b>{fullSizeWords(council)}</b>
            {reason !== null && `: ${reason}`}
          </span>
        </p>
      ) : (
        <UnstyledButton
          className={classes.fold}
          aria-expanded={open}
          aria-controls={id}
          onClick={() => setOpened(!open)}
        >
          <IconChevronRight size={15} aria-hidden="true" data-open={open || undefined} />
          <span data-folded={!open || undefined}>
            <b>Council, {open ? fullSizeWords(council) : sizeWords(council)}</b>
            {open ? reason !== null && `: ${reason}` : ` · ${foldedWords(council).join(' · ')}`}
          </span>
        </UnstyledButton>
      )}
      <div id={id} hidden={!open}>
        {open && <Opened council={council} running={running} complete={complete} />}
      </div>
    </section>
  )
}

function Opened({ council, running, complete }: Omit<Props, 'answered'>) {
  const store = useChatStore()
  const { id } = council
  const [pick, { problem }] = useAction((label: string) =>
    id === null ? Promise.resolve() : store.judge(id, { pick: label }),
  )
  const notes = [strategyWords(council), stepWords(council)].filter((note) => note !== null)
  return (
    <div className={classes.opened}>
      {notes.length > 0 && <p className={classes.note}>{notes.join(' ')}</p>}
      <Members
        council={council}
        running={running}
        onPick={complete && id !== null ? (label) => void pick(label) : null}
      />
      <ProblemNote problem={problem} />
      {council.chairs.map((chair) => (
        <ChairLine key={chair.label} chair={chair} running={running} />
      ))}
    </div>
  )
}

/** What the chair is at. Its words are the answer. */
function ChairLine({ chair, running }: { chair: Chair; running: boolean }) {
  const words = chairWords(chair, running)
  return (
    <>
      {words !== null && (
        <p className={classes.note} data-testid="chair">
          {words}
        </p>
      )}
      <Thinking text={chair.thinking} open={running && chair.state === 'answering'} />
    </>
  )
}
