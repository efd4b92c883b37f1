import { Button, Loader, Switch } from '@mantine/core'
import { IconArrowDown } from '@tabler/icons-react'
import { useCallback, useEffect, useRef } from 'react'
import { AskVoice } from '../cloud/AskVoice'
import { CouncilChoice } from '../council/CouncilChoice'
import { CouncilVoice } from '../council/CouncilVoice'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import type { Exchange } from './branch'
import { Composer } from './Composer'
import classes from './chat.module.css'
import { type Conversation, isRunning, lastAnswer } from './conversation'
import { EmptyState } from './EmptyState'
import { ExchangeView } from './ExchangeView'
import { useModels } from './ModelProvider'
import type { ChatStore } from './store'
import { useEscape } from './useEscape'
import { useStickToBottom } from './useStickToBottom'
import { WaitingVoice } from './WaitingLine'

/** On a touch screen the focus would open the keyboard over the page. */
function focusUnlessTouch(field: HTMLTextAreaElement | null): void {
  if (window.matchMedia('(pointer: fine)').matches) field?.focus()
}

interface Props {
  store: ChatStore
  conversation: Conversation
}

/** One conversation and where the next question is written. */
export function Chat({ store, conversation }: Props) {
  const { chosen, asked: model } = useModels()
  const { scroller, content, stuck, jump } = useStickToBottom()
  const field = useRef<HTMLTextAreaElement>(null)
  const running = isRunning(conversation)
  const answer = lastAnswer(conversation)

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
  useEscape(
    running,
    useCallback(() => void store.stop(), [store]),
  )

  return (
    <>
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
          {conversation.hasEarlier && <Earlier store={store} scroller={scroller} />}
          <Exchanges store={store} conversation={conversation} model={model} goOn={goOn} />
          {conversation.loading && <Loader size="sm" m="auto" aria-label="Loading" />}
          {isUntouched(conversation) && <EmptyState onAsk={ask} />}
        </div>
      </div>
      <WaitingVoice answer={answer} />
      <CouncilVoice answer={answer} />
      <AskVoice answer={answer} />
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
        <ProblemNote problem={conversation.problem} onRetry={() => void store.refresh()} />
        <CouncilChoice />
        <Composer field={field} running={running} ready={model !== null} onAsk={ask} />
        {chosen?.demonstration && <DemonstrationNote council={chosen.council} />}
        <Keeping store={store} conversation={conversation} />
      </div>
    </>
  )
}

const isUntouched = ({ exchanges, loading, problem }: Conversation) =>
  exchanges.length === 0 && !loading && problem === null

interface ExchangesProps extends Props {
  model: string | null
  goOn: () => void
}

function Exchanges({ store, conversation, model, goOn }: ExchangesProps) {
  const retry = useCallback(
    (exchange: Exchange) => {
      if (model === null) return
      store.retry(model, exchange)
      goOn()
    },
    [store, model, goOn],
  )
  const edit = useCallback(
    (exchange: Exchange, question: string) => {
      if (model === null) return
      store.edit(exchange, question, model)
      goOn()
    },
    [store, model, goOn],
  )
  const switchTo = useCallback((key: string) => void store.switchTo(key), [store])
  const running = isRunning(conversation)
  const canAsk = !running && model !== null
  return conversation.exchanges.map((exchange) => (
    <ExchangeView
      key={exchange.key}
      exchange={exchange}
      onRetry={canAsk ? retry : null}
      onEdit={canAsk ? edit : null}
      // A temporary answer would end with its branch.
      onSwitch={running && conversation.temporary ? null : switchTo}
    />
  ))
}

interface EarlierProps {
  store: ChatStore
  scroller: { readonly current: HTMLDivElement | null }
}

function Earlier({ store, scroller }: EarlierProps) {
  const [load, { pending, problem }] = useAction(async () => {
    const element = scroller.current
    const below = element === null ? 0 : element.scrollHeight - element.scrollTop
    await store.earlier()
    // Whoever reads stays where they read.
    requestAnimationFrame(() => {
      if (element !== null) element.scrollTop = element.scrollHeight - below
    })
  })
  return (
    <>
      <Button variant="subtle" size="compact-sm" loading={pending} onClick={() => void load()}>
        Show earlier messages
      </Button>
      <ProblemNote problem={problem} />
    </>
  )
}

/** Whether the conversation is stored; before it begins this can be chosen. */
function Keeping({ store, conversation }: Props) {
  const { id, temporary, messages } = conversation
  const isNew = id === null && messages.length === 0
  if (!isNew && !temporary) return null
  return (
    <div className={classes.keeping}>
      {isNew && (
        <Switch
          size="xs"
          label="Temporary chat"
          checked={temporary}
          onChange={(event) => store.keep(event.currentTarget.checked)}
        />
      )}
      {temporary && (
        <span data-testid="temporary">
          {isNew ? '' : 'Temporary chat: '}nothing of it is stored or leaves the box, it ends when
          you leave it.
        </span>
      )}
    </div>
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
