import { Button, Menu, Text } from '@mantine/core'
import { IconCloud, IconCloudLock } from '@tabler/icons-react'
import { useChat } from '../chat/ChatContext'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { useCloud } from './CloudContext'
import classes from './cloud.module.css'
import type { Wish } from './wire'
import { AS_USUAL, WISH_WORDS } from './words'

/** A conversation can only be stricter than its person's rules; others are shown where they were set elsewhere. */
const OFFERED: readonly Wish[] = [null, 'private', 'ask', 'pseudonymised']

const wordsOf = (wish: Wish) => (wish === null ? AS_USUAL : WISH_WORDS[wish])

/** What may leave of this conversation. Where nothing can leave anyway there is nothing to choose. */
export function WishMenu() {
  const { standing } = useCloud()
  const { store, conversation } = useChat()
  const [choose, { problem }] = useAction((wish: Wish) => store.wish(wish))
  const { temporary, cloud } = conversation
  const wish = temporary ? 'private' : cloud
  if (standing?.is_on !== true && cloud === null) return null
  const isPrivate = wish === 'private' || wish === 'never'
  const Icon = isPrivate ? IconCloudLock : IconCloud
  const choices = OFFERED.includes(wish) ? OFFERED : [...OFFERED, wish]
  return (
    <Menu position="bottom-start" width={280} withinPortal>
      <Menu.Target>
        <Button
          variant="default"
          size="xs"
          className={classes.wish}
          data-private={isPrivate || undefined}
          leftSection={<Icon size={15} aria-hidden="true" />}
          disabled={temporary}
          aria-label={`Cloud for this conversation: ${wordsOf(wish).title}`}
          title={temporary ? 'Temporary chats are private.' : undefined}
        >
          <span className={classes.wishWords}>{wordsOf(wish).title}</span>
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>May it leave this box?</Menu.Label>
        {choices.map((choice) => (
          <Menu.RadioItem
            key={String(choice)}
            value={String(choice)}
            checked={choice === wish}
            onChange={() => void choose(choice)}
          >
            <Text size="sm">{wordsOf(choice).title}</Text>
            <Text size="xs" c="dimmed">
              {wordsOf(choice).meaning}
            </Text>
          </Menu.RadioItem>
        ))}
        {problem !== null && <ProblemNote problem={problem} />}
      </Menu.Dropdown>
    </Menu>
  )
}
