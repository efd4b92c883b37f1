import { type ReactNode, useEffect, useState } from 'react'
import type { Principal } from '../api/client'
import { ChatContext } from '../chat/ChatContext'
import { ModelProvider } from '../chat/ModelProvider'
import { ChatStore } from '../chat/store'
import classes from './shell.module.css'
import { TopBar } from './TopBar'

/**
 * What stays while one person moves between pages. The conversation lives here
 * and not on the chat page, so a look at the usage does not end it.
 */
export function Shell({ principal, children }: { principal: Principal; children: ReactNode }) {
  const [chat] = useState(() => new ChatStore())
  useEffect(() => () => chat.stop(), [chat])
  return (
    <ChatContext value={chat}>
      <ModelProvider>
        <div className={classes.shell}>
          <TopBar principal={principal} />
          <div className={classes.content}>{children}</div>
        </div>
      </ModelProvider>
    </ChatContext>
  )
}
