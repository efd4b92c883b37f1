import { ActionIcon, Button, Tooltip } from '@mantine/core'
import { IconLayoutSidebar, IconPlus } from '@tabler/icons-react'
import { Link, useLocation, useRoute } from 'wouter'
import type { Principal } from '../api/client'
import { CHAT_ROUTE, useChatAddress, useChatIsEmpty, useChatStore } from '../chat/ChatContext'
import { ModelPicker } from '../chat/ModelPicker'
import { WishMenu } from '../cloud/WishMenu'
import { useSidebar } from '../conversations/SidebarContext'
import { Mark } from '../ui/Mark'
import { pagesFor } from './pages'
import classes from './shell.module.css'
import { UserMenu } from './UserMenu'

export function TopBar({ principal }: { principal: Principal }) {
  const [inChat] = useRoute(CHAT_ROUTE)
  const chat = useChatAddress()
  return (
    <header className={classes.bar}>
      {inChat && <SidebarButton />}
      <Link href={chat} className={classes.brand} aria-label="WIRTHFORGE, chat">
        <Mark />
        <span className={classes.brandName}>WIRTHFORGE</span>
      </Link>
      {inChat && <ChatControls />}
      <nav className={classes.links} aria-label="Pages">
        {pagesFor(principal, chat).map(({ path, title }) => (
          <NavLink key={title} path={path} title={title} isChat={path === chat} />
        ))}
      </nav>
      <UserMenu principal={principal} />
    </header>
  )
}

function NavLink({ path, title, isChat }: { path: string; title: string; isChat: boolean }) {
  // A page may have pages below it.
  const [here] = useRoute(isChat ? CHAT_ROUTE : `${path}/*?`)
  return (
    <Link href={path} className={classes.link} aria-current={here ? 'page' : undefined}>
      {title}
    </Link>
  )
}

function SidebarButton() {
  const { isOpen, isDrawer, toggle } = useSidebar()
  const label = isOpen && !isDrawer ? 'Hide conversations' : 'Show conversations'
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant="subtle"
        color="gray"
        size={32}
        aria-label={label}
        aria-expanded={isOpen}
        onClick={toggle}
      >
        <IconLayoutSidebar size={19} />
      </ActionIcon>
    </Tooltip>
  )
}

function ChatControls() {
  const store = useChatStore()
  const empty = useChatIsEmpty()
  const [, navigate] = useLocation()
  return (
    <>
      <ModelPicker />
      <WishMenu />
      <Button
        variant="default"
        size="xs"
        className={classes.newChat}
        aria-label="New chat"
        leftSection={<IconPlus size={15} />}
        disabled={empty}
        onClick={() => {
          store.clear()
          navigate('/')
        }}
      >
        <span className={classes.newChatWords}>New chat</span>
      </Button>
    </>
  )
}
