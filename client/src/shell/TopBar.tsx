import { Button } from '@mantine/core'
import { IconPlus } from '@tabler/icons-react'
import { Link, useRoute } from 'wouter'
import type { Principal } from '../api/client'
import { useChatIsEmpty, useChatStore } from '../chat/ChatContext'
import { ModelPicker } from '../chat/ModelPicker'
import { Mark } from '../ui/Mark'
import { pagesFor } from './pages'
import classes from './shell.module.css'
import { UserMenu } from './UserMenu'

export function TopBar({ principal }: { principal: Principal }) {
  const [inChat] = useRoute('/')
  return (
    <header className={classes.bar}>
      <Link href="/" className={classes.brand} aria-label="WIRTHFORGE, chat">
        <Mark />
        <span className={classes.brandName}>WIRTHFORGE</span>
      </Link>
      {inChat && <ChatControls />}
      <nav className={classes.links} aria-label="Pages">
        {pagesFor(principal).map(({ path, title }) => (
          <NavLink key={path} path={path} title={title} />
        ))}
      </nav>
      <UserMenu principal={principal} />
    </header>
  )
}

function NavLink({ path, title }: { path: string; title: string }) {
  // A page may have pages below it; the chat's path is above all of them.
  const [here] = useRoute(path === '/' ? path : `${path}/*?`)
  return (
    <Link href={path} className={classes.link} aria-current={here ? 'page' : undefined}>
      {title}
    </Link>
  )
}

function ChatControls() {
  const store = useChatStore()
  const empty = useChatIsEmpty()
  return (
    <>
      <ModelPicker />
      <Button
        variant="default"
        size="xs"
        className={classes.newChat}
        leftSection={<IconPlus size={15} />}
        disabled={empty}
        onClick={() => store.clear()}
      >
        New chat
      </Button>
    </>
  )
}
