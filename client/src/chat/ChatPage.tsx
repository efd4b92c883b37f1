import { Button } from '@mantine/core'
import { useDocumentTitle } from '@mantine/hooks'
import { IconArrowDown } from '@tabler/icons-react'
import { useCallback, useEffect, useRef } from 'react'
import { CouncilChoice } from '../council/CouncilChoice'
import { CouncilVoice } from '../council/CouncilVoice'
import { useChat } from './ChatContext'
import { Composer } from './Composer'
import classes from './chat.module.css'
import { isRunning } from './conversation'
import { EmptyState } from './EmptyState'
import { ExchangeView } from './ExchangeView'
import { useModels } from './ModelProvider'
import { useEscape } from './useEscape'
import { useStickToBottom } from './useStickToBottom'
import { WaitingVoice } from './WaitingLine'

/** On a touch screen the focus would open the keyboard over the page. */
function focusUnlessTouch(field: HTMLTextAreaElement | null): void {
  if (window.matchMedia('(pointer: fine)').matches) field?.focus()
}

export default function ChatPage() {
  const { store, conversation } = useChat()
  const { chosen, asked: model } = useModels()
  const { scroller, content, stuck, jump } = useStickToBottom()
  const field = useRef<HTMLTextAreaElement>(null)
  const running = isRunning(conversation)
  useDocumentTitle('Chat · WIRTHFORGE')

  useEffect(() => focusUnlessTouch(field.current), [])
  // The buttons that call this vanish with it, and the focus must not get lost.
  const goOn = useCallback(() => {
    jump()
    focusUnlessTouch(field.current)
  }, [jump])
  const ask = useCallback(
    (question: string) => {
      if (model === null) return
      store.ask(question, model)
      goOn()
    },
    [store, model, goOn],
  )
  const retry = useCallback(() => {
    if (model === null) return
    store.retry(model)
    goOn()
  }, [store, model, goOn])

  useEscape(
    running,
    useCallback(() => store.stop(), [store]),
  )

  const last = conversation.exchanges.length - 1
  return (
    <main className={classes.chat}>
      <div className={classes.scroller} ref={scroller}>
        <div
          className={classes.log}
          ref={content}
          role="log"
          aria-label="Conversation"
          aria-live="polite"
          // A reader hears the answer once it is whole, not token by token.
          aria-busy={running}
        >
          {conversation.exchanges.map((exchange, index) => (
            <ExchangeView
              key={exchange.id}
              exchange={exchange}
              onRetry={index === last && !running ? retry : null}
            />
          ))}
          {last === -1 && <EmptyState onAsk={ask} />}
        </div>
      </div>
      <WaitingVoice answer={conversation.exchanges[last]?.answer} />
      <CouncilVoice answer={conversation.exchanges[last]?.answer} />
      <div className={classes.foot}>
        {!stuck && (
          <Button
            className={classes.jump}
            size="compact-sm"
            variant="default"
            leftSection={<IconArrowDown size={14} />}
            onClick={goOn}
          >
            Jump to latest
          </Button>
        )}
        <CouncilChoice />
        <Composer field={field} running={running} ready={model !== null} onAsk={ask} />
        {chosen?.demonstration && <DemonstrationNote council={chosen.council} />}
        <p className={classes.note}>
          Conversations are not stored yet: this one ends with the page.
        </p>
      </div>
    </main>
  )
}

function DemonstrationNote({ council }: { council: boolean }) {
  return (
    <p className={classes.note}>
      {council
        ? 'A council of built-in demonstration models: they know this server and nothing else.'
        : 'A built-in demonstration model: it knows this server and nothing else.'}{' '}
      Add a real one with <code>wirthforge up --model …</code>.
    </p>
  )
}
