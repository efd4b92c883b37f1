import { Text } from '@mantine/core'
import { useDocumentTitle } from '@mantine/hooks'
import { useEffect } from 'react'
import { Link, useRoute } from 'wouter'
import { titleOf } from '../conversations/groups'
import { useList } from '../conversations/ListContext'
import { Sidebar } from '../conversations/Sidebar'
import { Chat } from './Chat'
import { CHAT_ROUTE, useChat } from './ChatContext'
import classes from './chat.module.css'
import type { Conversation } from './conversation'
import { useModels } from './ModelProvider'
import { useAddress } from './useAddress'

/** The open conversation, and beside it the others. */
export default function ChatPage() {
  const { store, conversation } = useChat()
  const { list } = useList()
  const [, params] = useRoute(CHAT_ROUTE)
  const { id, serial, exchanges } = conversation
  useAddress(store, params?.[0] ?? null, id)
  const row = list.rows?.find((one) => one.id === id)
  const title = row ?? conversation
  useDocumentTitle(`${exchanges.length === 0 ? 'Chat' : titleOf(title)} · WIRTHFORGE`)

  useModelOf(conversation)

  // What was said in another tab.
  const updated = row?.updated_at
  useEffect(() => {
    if (updated !== undefined) store.isUpdated(updated)
  }, [store, updated])

  return (
    <div className={classes.page}>
      <Sidebar />
      <main className={classes.chat}>
        {conversation.problem?.status === 404 ? (
          <Missing />
        ) : (
          <Chat key={serial} store={store} conversation={conversation} />
        )}
      </main>
    </div>
  )
}

/** A conversation goes on with the model that it was had with. */
function useModelOf({ serial, loading, exchanges }: Conversation): void {
  const { adopt } = useModels()
  const model = exchanges.at(-1)?.reply?.answer.model || null
  const isOpened = !loading
  // biome-ignore lint/correctness/useExhaustiveDependencies: the model of when it was opened
  useEffect(() => {
    if (isOpened) adopt(serial, model)
  }, [serial, isOpened, adopt])
}

function Missing() {
  return (
    <div className={classes.missing}>
      <Text component="h1" size="lg" fw={650}>
        There is no such conversation
      </Text>
      <Text>
        It may have been deleted. <Link href="/">Begin a new one</Link>
      </Text>
    </div>
  )
}
