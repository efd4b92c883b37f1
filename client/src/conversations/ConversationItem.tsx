import { ActionIcon, Menu, TextInput } from '@mantine/core'
import {
  IconBraces,
  IconDots,
  IconMarkdown,
  IconPencil,
  IconPin,
  IconPinnedOff,
  IconTrash,
} from '@tabler/icons-react'
import { memo, useState } from 'react'
import { Link, useLocation } from 'wouter'
import { addressOf, useChatAddress, useChatStore } from '../chat/ChatContext'
import { ConfirmDialog } from '../ui/ConfirmDialog'
import { ProblemNote } from '../ui/ProblemNote'
import { useAction } from '../ui/useAction'
import { exportPathOf } from './calls'
import classes from './conversations.module.css'
import { piecesOf, titleOf } from './groups'
import { useList } from './ListContext'
import { useSidebar } from './SidebarContext'
import type { ConversationRow } from './wire'

const TITLE_LENGTH_MAX = 200

/** One conversation of the list, and what can be done with it. */
export const ConversationItem = memo(function ConversationItem({ row }: { row: ConversationRow }) {
  const { store } = useList()
  const [asking, setAsking] = useState<'title' | 'removal' | null>(null)
  const [change, { problem }] = useAction(store.change.bind(store))
  const { id, pinned } = row
  const rename = (title: string) => {
    setAsking(null)
    if (title !== '' && title !== row.title) void change(id, { title })
  }
  return (
    <li className={classes.row} data-testid="conversation">
      {asking === 'title' ? (
        <TitleField before={titleOf(row)} onEnd={rename} />
      ) : (
        <>
          <ItemLink row={row} />
          <Actions
            row={row}
            onRename={() => setAsking('title')}
            onPin={() => void change(id, { pinned: !pinned })}
            onRemove={() => setAsking('removal')}
          />
        </>
      )}
      <ProblemNote problem={problem} />
      {asking === 'removal' && <Removal row={row} onClose={() => setAsking(null)} />}
    </li>
  )
})

function ItemLink({ row }: { row: ConversationRow }) {
  const address = useChatAddress()
  const { close } = useSidebar()
  const to = addressOf(row.id)
  return (
    <Link
      href={to}
      className={classes.link}
      aria-current={address === to ? 'page' : undefined}
      title={titleOf(row)}
      onClick={close}
    >
      <span className={classes.title}>{titleOf(row)}</span>
      {row.running && <span className={classes.running} role="img" aria-label="answering" />}
      {row.excerpt && <Excerpt text={row.excerpt} />}
    </Link>
  )
}

function Excerpt({ text }: { text: string }) {
  return (
    <span className={classes.excerpt}>
      {piecesOf(text).map(({ text: piece, isFound }, index) =>
        // biome-ignore lint/suspicious/noArrayIndexKey: they are all drawn anew
        isFound ? <mark key={index}>{piece}</mark> : <span key={index}>{piece}</span>,
      )}
    </span>
  )
}

interface ActionsProps {
  row: ConversationRow
  onRename: () => void
  onPin: () => void
  onRemove: () => void
}

function Actions({ row, onRename, onPin, onRemove }: ActionsProps) {
  const { id, pinned } = row
  const PinIcon = pinned ? IconPinnedOff : IconPin
  return (
    // The title field takes the focus; the menu must not take it back.
    <Menu position="bottom-end" width={220} withinPortal returnFocus={false}>
      <Menu.Target>
        <ActionIcon
          variant="subtle"
          color="gray"
          size="sm"
          className={classes.actions}
          aria-label={`Actions for ${titleOf(row)}`}
        >
          <IconDots size={15} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item leftSection={<IconPencil size={15} />} onClick={onRename}>
          Rename
        </Menu.Item>
        <Menu.Item leftSection={<PinIcon size={15} />} onClick={onPin}>
          {pinned ? 'Unpin' : 'Pin'}
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item
          component="a"
          href={exportPathOf(id, 'markdown')}
          download
          leftSection={<IconMarkdown size={15} />}
        >
          Export as Markdown
        </Menu.Item>
        <Menu.Item
          component="a"
          href={exportPathOf(id, 'json')}
          download
          leftSection={<IconBraces size={15} />}
        >
          Export as JSON
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item
          c="var(--mantine-color-error)"
          leftSection={<IconTrash size={15} />}
          onClick={onRemove}
        >
          Delete…
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  )
}

/** Enter and leaving it keep what is written, Escape what was. */
function TitleField({ before, onEnd }: { before: string; onEnd: (title: string) => void }) {
  const [title, setTitle] = useState(before)
  return (
    <TextInput
      className={classes.titleField}
      size="xs"
      aria-label="Title"
      data-keeps-escape
      maxLength={TITLE_LENGTH_MAX}
      ref={(field) => {
        if (field !== document.activeElement) field?.select()
      }}
      value={title}
      onChange={(event) => setTitle(event.currentTarget.value)}
      onBlur={() => onEnd(title.trim())}
      onKeyDown={(event) => {
        if (event.nativeEvent.isComposing) return
        if (event.key === 'Enter') onEnd(title.trim())
        if (event.key === 'Escape') onEnd('')
      }}
    />
  )
}

function Removal({ row, onClose }: { row: ConversationRow; onClose: () => void }) {
  const { store } = useList()
  const chat = useChatStore()
  const [, navigate] = useLocation()
  const remove = async () => {
    await store.remove(row.id)
    if (chat.current().id !== row.id) return
    chat.clear()
    navigate('/')
  }
  const running = row.running ? ' The answer that is being written is stopped.' : ''
  return (
    <ConfirmDialog
      title={`Delete “${titleOf(row)}”?`}
      action="Delete"
      onConfirm={remove}
      onClose={onClose}
    >
      {`All its questions and answers are deleted. This cannot be undone.${running}`}
    </ConfirmDialog>
  )
}
