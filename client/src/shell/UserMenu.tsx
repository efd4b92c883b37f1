import { Menu, Text, UnstyledButton } from '@mantine/core'
import {
  IconBook2,
  IconChevronDown,
  IconExternalLink,
  IconLock,
  IconLogout,
} from '@tabler/icons-react'
import { useState } from 'react'
import { Link } from 'wouter'
import type { Principal } from '../api/client'
import { useChatAddress } from '../chat/ChatContext'
import { PasswordDialog } from '../session/PasswordDialog'
import { useSession } from '../session/SessionProvider'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { pagesFor } from './pages'
import classes from './shell.module.css'

/** The person's own menu; on a narrow screen it carries the page links too. */
export function UserMenu({ principal }: { principal: Principal }) {
  const { logOut } = useSession()
  const chat = useChatAddress()
  const [changing, setChanging] = useState(false)
  const [leave, { problem }] = useAction(logOut)
  return (
    <>
      <Menu position="bottom-end" width={220} withinPortal>
        <Menu.Target>
          <UnstyledButton className={classes.user} aria-label={`Menu of ${principal.name}`}>
            <span className={classes.initial} aria-hidden="true">
              {[...principal.name][0]?.toUpperCase()}
            </span>
            <span className={classes.userName}>{principal.name}</span>
            <IconChevronDown size={14} aria-hidden="true" />
          </UnstyledButton>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Label>
            {principal.name} · {principal.role}
          </Menu.Label>
          <div className={classes.menuPages}>
            {pagesFor(principal, chat).map(({ path, title }) => (
              <Menu.Item key={title} component={Link} href={path}>
                {title}
              </Menu.Item>
            ))}
            <Menu.Divider />
          </div>
          <Menu.Item
            component="a"
            href="/docs"
            target="_blank"
            leftSection={<IconBook2 size={16} />}
            rightSection={<IconExternalLink size={13} />}
          >
            API docs
          </Menu.Item>
          <Menu.Item leftSection={<IconLock size={16} />} onClick={() => setChanging(true)}>
            Change password
          </Menu.Item>
          <Menu.Item
            leftSection={<IconLogout size={16} />}
            closeMenuOnClick={false}
            onClick={() => void leave()}
          >
            Log out
          </Menu.Item>
          {problem !== null && (
            <Text component="div" size="xs" p={4}>
              <ProblemNote problem={problem} />
            </Text>
          )}
        </Menu.Dropdown>
      </Menu>
      <PasswordDialog opened={changing} onClose={() => setChanging(false)} />
    </>
  )
}
