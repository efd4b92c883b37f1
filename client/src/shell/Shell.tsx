import { type ReactNode, useEffect, useState } from 'react'
import type { Principal } from '../api/client'
import { ChatContext } from '../chat/ChatContext'
import { ModelProvider } from '../chat/ModelProvider'
import { ChatStore } from '../chat/store'
import { CloudProvider } from '../cloud/CloudContext'
import { ListContext } from '../conversations/ListContext'
import { ConversationList } from '../conversations/list'
import { SidebarProvider } from '../conversations/SidebarContext'
import classes from './shell.module.css'
import { TopBar } from './TopBar'

/**
 * What stays while one person moves between pages. The open
 * conversation lives here and not on the chat page, so a look at the usage does not end it.
 */
export function Shell({ principal, children }: { principal: Principal; children: ReactNode }) {
  const [list] = useState(() => new ConversationList())
  const [chat] = useState(() => new ChatStore((ended) => void list.hasChanged(ended)))
  useEffect(() => chat.dispose, [chat])
  return (
    <ListContext value={list}>
      <ChatContext value={chat}>
        <ModelProvider>
          <CloudProvider>
            <SidebarProvider>
              <div className={classes.shell}>
                <TopBar principal={principal} />
                <div className={classes.content}>{children}</div>
              </div>
            </SidebarProvider>
          </CloudProvider>
        </ModelProvider>
      </ChatContext>
    </ListContext>
  )
}
