import { Button, CloseButton, Drawer, TextInput, VisuallyHidden } from '@mantine/core'
import { useDebouncedCallback, useWindowEvent } from '@mantine/hooks'
import { IconFileImport, IconSearch } from '@tabler/icons-react'
import { useEffect, useState } from 'react'
import { counted } from '../ui/format'
import { ProblemNote } from '../ui/ProblemNote'
import { ConversationItem } from './ConversationItem'
import classes from './conversations.module.css'
import { groupsOf } from './groups'
import { ImportDialog } from './ImportDialog'
import { useList } from './ListContext'
import { MoreButton } from './MoreButton'
import { useSidebar } from './SidebarContext'

const SEARCH_AFTER_MS = 250
/** While an answer of one is being written, the list looks so often whether it is done. */
const RUNNING_EVERY_MS = 5000

/** The conversations beside the chat; on a narrow screen, in front of it. */
export function Sidebar() {
  const { isOpen, isDrawer, close } = useSidebar()
  useFreshList()
  if (isDrawer) {
    return (
      <Drawer
        opened={isOpen}
        onClose={close}
        size={300}
        title="Conversations"
        closeButtonProps={{ 'aria-label': 'Close' }}
        classNames={{ body: classes.drawer ?? '', content: classes.drawerContent ?? '' }}
      >
        <Contents />
      </Drawer>
    )
  }
  if (!isOpen) return null
  return (
    <aside className={classes.sidebar} id="conversations">
      <Contents />
    </aside>
  )
}

function useFreshList(): void {
  const { store, list } = useList()
  useEffect(() => void store.refresh(), [store])
  useWindowEvent('focus', store.refresh)
  const isRunning = list.rows?.some(({ running }) => running) ?? false
  useEffect(() => {
    if (!isRunning) return
    const timer = setInterval(() => {
      if (!document.hidden) void store.refresh()
    }, RUNNING_EVERY_MS)
    return () => clearInterval(timer)
  }, [store, isRunning])
}

function Contents() {
  const { store, list } = useList()
  const [importing, setImporting] = useState(false)
  return (
    <nav className={classes.contents} aria-label="Conversations">
      <SearchField />
      <div className={classes.scroller}>
        <Rows />
        {list.next !== null && (
          <MoreButton loading={list.loading} onMore={() => void store.more()} />
        )}
      </div>
      <ProblemNote problem={list.problem} onRetry={() => void store.refresh()} />
      <Button
        variant="subtle"
        color="gray"
        size="xs"
        fw={400}
        className={classes.import}
        leftSection={<IconFileImport size={15} />}
        onClick={() => setImporting(true)}
      >
        Import conversations…
      </Button>
      {importing && <ImportDialog onClose={() => setImporting(false)} />}
    </nav>
  )
}

function SearchField() {
  const { store, list } = useList()
  const [text, setText] = useState(list.search)
  const search = useDebouncedCallback((words: string) => void store.search(words), SEARCH_AFTER_MS)
  const change = (value: string) => {
    setText(value)
    search(value.trim())
  }
  const found = list.rows?.length ?? 0
  return (
    // biome-ignore lint/a11y/useSemanticElements: jsdom does not know <search>
    <form role="search" className={classes.search} onSubmit={(event) => event.preventDefault()}>
      <TextInput
        aria-label="Search conversations"
        placeholder="Search"
        size="xs"
        value={text}
        leftSection={<IconSearch size={14} />}
        rightSection={
          text !== '' && (
            <CloseButton size="xs" aria-label="Clear the search" onClick={() => change('')} />
          )
        }
        onChange={(event) => change(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === 'Escape' && text !== '') change('')
        }}
        data-keeps-escape={text !== '' || undefined}
      />
      <VisuallyHidden role="status">
        {list.search !== '' && !list.loading && `${counted(found, 'conversation')} found`}
      </VisuallyHidden>
    </form>
  )
}

function Rows() {
  const { list } = useList()
  const { rows, search } = list
  if (rows === null) return null
  if (rows.length === 0) {
    return (
      <p className={classes.nothing}>
        {search === '' ? 'What you ask is kept here.' : 'Nothing was found.'}
      </p>
    )
  }
  const groups = search === '' ? groupsOf(rows) : [{ title: 'Found', rows: [...rows] }]
  // One list, so that a row that changes its group stays the same element: its title may be in the making.
  return (
    <ul className={classes.rows}>
      {groups.flatMap(({ title, rows: members }) => [
        <li key={title} className={classes.groupTitle}>
          <h2>{title}</h2>
        </li>,
        ...members.map((row) => <ConversationItem key={row.id} row={row} />),
      ])}
    </ul>
  )
}
