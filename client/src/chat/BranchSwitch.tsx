import { ActionIcon } from '@mantine/core'
import { IconChevronLeft, IconChevronRight } from '@tabler/icons-react'
import classes from './chat.module.css'

interface Props {
  /** What there are several of: "question", "answer". */
  noun: string
  /** The keys of all of them. */
  keys: readonly string[]
  /** The one that is looked at. */
  at: string
  /** Null where another cannot be looked at just now. */
  onSwitch: ((key: string) => void) | null
}

/** Leads to the other questions, or answers, that stand in the same place. */
export function BranchSwitch({ noun, keys, at, onSwitch }: Props) {
  const index = keys.indexOf(at)
  if (keys.length < 2) return null
  const step = (to: number, label: string, Icon: typeof IconChevronLeft) => {
    const key = keys[to]
    return (
      <ActionIcon
        variant="subtle"
        color="gray"
        size="sm"
        aria-label={`${label} ${noun}`}
        disabled={key === undefined || onSwitch === null}
        onClick={() => key !== undefined && onSwitch?.(key)}
      >
        <Icon size={15} />
      </ActionIcon>
    )
  }
  return (
    <span className={classes.branches} data-testid={`${noun}-branches`}>
      {step(index - 1, 'Previous', IconChevronLeft)}
      <span role="img" aria-label={`${noun} ${index + 1} of ${keys.length}`}>
        {index + 1}/{keys.length}
      </span>
      {step(index + 1, 'Next', IconChevronRight)}
    </span>
  )
}
