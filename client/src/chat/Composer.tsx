import { ActionIcon, Textarea } from '@mantine/core'
import { IconArrowUp, IconPlayerStopFilled } from '@tabler/icons-react'
import { type KeyboardEvent, memo, type RefObject, type SubmitEvent, useState } from 'react'
import { isSend } from '../ui/keys'
import { useChatStore } from './ChatContext'
import classes from './chat.module.css'

interface Props {
  field: RefObject<HTMLTextAreaElement | null>
  running: boolean
  /** False while there is no model to ask. */
  ready: boolean
  onAsk: (question: string) => void
}

/** Memoised: it measures its text to grow, which must not happen with every token. */
export const Composer = memo(function Composer({ field, running, ready, onAsk }: Props) {
  const store = useChatStore()
  const [text, setText] = useState(store.draft)
  const sendable = ready && text.trim() !== ''

  const change = (value: string) => {
    store.draft = value
    setText(value)
  }

  const submit = (event?: SubmitEvent<HTMLFormElement>) => {
    event?.preventDefault()
    field.current?.focus()
    if (!sendable || running) return
    onAsk(text.trim())
    change('')
  }

  const onKeyDown = (event: KeyboardEvent<HTMLTextAreaElement>) => {
    if (!isSend(event)) return
    event.preventDefault()
    submit()
  }

  return (
    <form className={classes.composer} onSubmit={submit}>
      <Textarea
        ref={field}
        aria-label="Message"
        placeholder="Ask something"
        variant="unstyled"
        className={classes.field}
        autosize
        minRows={1}
        maxRows={10}
        value={text}
        onChange={(event) => change(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
      {running ? (
        <ActionIcon
          // Apart from Send for React: the click that sends must not land on Stop.
          key="stop"
          size={34}
          aria-label="Stop"
          title="Stop (Escape)"
          onClick={() => {
            void store.stop()
            field.current?.focus()
          }}
        >
          <IconPlayerStopFilled size={16} />
        </ActionIcon>
      ) : (
        <ActionIcon key="send" type="submit" size={34} aria-label="Send" disabled={!sendable}>
          <IconArrowUp size={18} />
        </ActionIcon>
      )}
    </form>
  )
})
