import { ActionIcon, Button, Textarea, Tooltip } from '@mantine/core'
import { IconPencil } from '@tabler/icons-react'
import { type SubmitEvent, useState } from 'react'
import { isSend } from '../ui/keys'
import { BranchSwitch } from './BranchSwitch'
import classes from './chat.module.css'

interface Props {
  text: string
  /** Its key and those of its siblings. */
  at: string
  keys: readonly string[]
  /** Asks something else in its place; null where that is not on offer. */
  onEdit: ((text: string) => void) | null
  onSwitch: ((key: string) => void) | null
}

/** A question; it can be asked anew in other words, which begins a branch. */
export function QuestionView({ text, at, keys, onEdit, onSwitch }: Props) {
  const [editing, setEditing] = useState(false)
  if (editing && onEdit !== null) {
    return <QuestionForm before={text} onSend={onEdit} onClose={() => setEditing(false)} />
  }
  return (
    <div className={classes.asked}>
      <p className={classes.question} data-testid="question">
        {text}
      </p>
      <div className={classes.questionFoot} data-shown={keys.length > 1 || undefined}>
        <BranchSwitch noun="question" keys={keys} at={at} onSwitch={onSwitch} />
        {onEdit !== null && (
          <Tooltip label="Edit and ask again">
            <ActionIcon
              variant="subtle"
              color="gray"
              size="sm"
              aria-label="Edit question"
              onClick={() => setEditing(true)}
            >
              <IconPencil size={15} />
            </ActionIcon>
          </Tooltip>
        )}
      </div>
    </div>
  )
}

interface FormProps {
  before: string
  onSend: (text: string) => void
  onClose: () => void
}

function QuestionForm({ before, onSend, onClose }: FormProps) {
  const [text, setText] = useState(before)
  const sendable = text.trim() !== ''
  const send = (event?: SubmitEvent<HTMLFormElement>) => {
    event?.preventDefault()
    if (!sendable) return
    onSend(text.trim())
    onClose()
  }
  return (
    <form className={classes.edit} onSubmit={send} aria-label="Edit question">
      <Textarea
        aria-label="Question"
        data-keeps-escape
        autosize
        maxRows={12}
        value={text}
        ref={focusEnd}
        onChange={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape') onClose()
          if (!isSend(event)) return
          event.preventDefault()
          send()
        }}
      />
      <div className={classes.editFoot}>
        <Button size="compact-sm" variant="default" onClick={onClose}>
          Cancel
        </Button>
        <Button size="compact-sm" type="submit" disabled={!sendable}>
          Ask
        </Button>
      </div>
    </form>
  )
}

/** Where one goes on writing. */
function focusEnd(field: HTMLTextAreaElement | null): void {
  field?.focus()
  field?.setSelectionRange(field.value.length, field.value.length)
}
