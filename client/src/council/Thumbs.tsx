import { ActionIcon, Tooltip } from '@mantine/core'
import {
  IconThumbDown,
  IconThumbDownFilled,
  IconThumbUp,
  IconThumbUpFilled,
} from '@tabler/icons-react'
import { useChatStore } from '../chat/ChatContext'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import type { Judgement } from './council'
import classes from './council.module.css'

const THUMBS = [
  { thumb: 'up', label: 'Good answer', Icon: IconThumbUp, Pressed: IconThumbUpFilled },
  { thumb: 'down', label: 'Bad answer', Icon: IconThumbDown, Pressed: IconThumbDownFilled },
] as const

interface Props {
  /** The id of the council. */
  council: string
  judged: Judgement | null
}

/** What the person thinks of the final answer; the council learns from it. */
export function Thumbs({ council, judged }: Props) {
  const store = useChatStore()
  const [judge, { problem }] = useAction((judgement: Judgement) => store.judge(council, judgement))
  const said = judged !== null && 'thumb' in judged ? judged.thumb : null
  return (
    <>
      {THUMBS.map(({ thumb, label, Icon, Pressed }) => (
        <Tooltip key={thumb} label={label}>
          <ActionIcon
            variant="subtle"
            color={said === thumb ? 'ember' : 'gray'}
            size="sm"
            aria-label={label}
            aria-pressed={said === thumb}
            onClick={() => void judge({ thumb })}
          >
            {said === thumb ? <Pressed size={15} /> : <Icon size={15} />}
          </ActionIcon>
        </Tooltip>
      ))}
      <span role="status" className={classes.noted}>
        {judged !== null && 'Noted.'}
      </span>
      {problem !== null && (
        <div className={classes.footProblem}>
          <ProblemNote problem={problem} />
        </div>
      )}
    </>
  )
}
