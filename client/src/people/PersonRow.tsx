import { ActionIcon, Badge, Group, Menu, Text } from '@mantine/core'
import { IconDots } from '@tabler/icons-react'
import type { Role, User } from '../api/client'
import { date } from '../ui/format'
import ui from '../ui/ui.module.css'

interface Props {
  user: User
  /** One's own row has no actions: nobody should lock themselves out by a slip. */
  self: boolean
  onRole: (role: Role) => void
  onEnable: () => void
  onDisable: () => void
  onNewLink: () => void
}

export function PersonRow({ user, self, onRole, onEnable, onDisable, onNewLink }: Props) {
  const other: Role = user.role === 'admin' ? 'member' : 'admin'
  return (
    <li data-testid="person-row">
      <div className={ui.rowText}>
        <Group gap={8}>
          <Text fw={550} {...(user.disabled ? { c: 'dimmed' } : {})}>
            {user.name}
          </Text>
          {user.role === 'admin' && <Badge>admin</Badge>}
          {user.disabled && <Badge color="gray">disabled</Badge>}
        </Group>
        <Text size="sm" c="dimmed">
          {self ? 'you · ' : ''}since {date(user.created_at)}
        </Text>
      </div>
      {!self && (
        <Menu position="bottom-end">
          <Menu.Target>
            <ActionIcon variant="default" size={30} aria-label={`Actions for ${user.name}`}>
              <IconDots size={16} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item onClick={onNewLink}>New set-up link</Menu.Item>
            <Menu.Item onClick={() => onRole(other)}>
              {other === 'admin' ? 'Make admin' : 'Make member'}
            </Menu.Item>
            {user.disabled ? (
              <Menu.Item onClick={onEnable}>Enable</Menu.Item>
            ) : (
              <Menu.Item c="var(--mantine-color-error)" onClick={onDisable}>
                Disable…
              </Menu.Item>
            )}
          </Menu.Dropdown>
        </Menu>
      )}
    </li>
  )
}
