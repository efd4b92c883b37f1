/**
 * The list of stored conversations, page by page, or what a search found in it. It stands outside
 * React, beside the open conversation, which says when something in it may have changed.
 */
import { asProblem, type Problem } from '../api/errors'
import { changeConversation, deleteConversation, listConversations } from './calls'
import type { ConversationChange, ConversationPage, ConversationRow } from './wire'

const PAGE = 40
const PUT_AWAY_MS = 800

export interface List {
  /** What was searched for; empty for all. */
  search: string
  /** Null until they are there. */
  rows: readonly ConversationRow[] | null
  /** Where the next page begins; null at the end. */
  next: string | null
  loading: boolean
  problem: Problem | null
}

const EMPTY: List = { search: '', rows: null, next: null, loading: false, problem: null }

export class ConversationList {
  #list: List = EMPTY
  /** Counts what was asked for: only the latest answer counts. */
  #round = 0
  readonly #listeners = new Set<() => void>()

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readonly current = (): List => this.#list

  /** Asks for the first page again; later ones stay. */
  readonly refresh = async (): Promise<void> => {
    const { search } = this.#list
    await this.#ask(null, (page) => ({ search, ...withFirst(this.#list, page) }))
  }

  /** Something was asked, or an answer of the conversation `ended`. */
  async hasChanged(ended: string | null): Promise<void> {
    if (ended !== null) {
      const rows = this.#list.rows?.map((row) =>
        row.id === ended && row.running ? { ...row, running: false } : row,
      )
      this.#set({ rows: rows ?? null })
      // The server puts an answer away after its last word.
      await new Promise((resolve) => setTimeout(resolve, PUT_AWAY_MS))
    }
    await this.refresh()
  }

  async search(search: string): Promise<void> {
    if (search === this.#list.search) return
    this.#set({ search })
    await this.#ask(null, ({ conversations, next }) => ({ rows: conversations, next }))
  }

  /** Asks for the next page. */
  async more(): Promise<void> {
    const { rows, next, loading } = this.#list
    if (rows === null || next === null || loading) return
    await this.#ask(next, (page) => {
      const known = new Set(rows.map(({ id }) => id))
      const added = page.conversations.filter(({ id }) => !known.has(id))
      return { rows: [...rows, ...added], next: page.next }
    })
  }

  /** Renames or pins; throws a `Problem`. */
  async change(id: string, change: ConversationChange): Promise<void> {
    await changeConversation(id, change)
    const rows = this.#list.rows?.map((row) => (row.id === id ? { ...row, ...change } : row))
    this.#set({ rows: rows ?? null })
    // A pinned one moves.
    void this.refresh()
  }

  /** Throws a `Problem`. */
  async remove(id: string): Promise<void> {
    await deleteConversation(id)
    this.#set({ rows: this.#list.rows?.filter((row) => row.id !== id) ?? null })
    void this.refresh()
  }

  async #ask(before: string | null, take: (page: ConversationPage) => Partial<List>) {
    this.#round += 1
    const round = this.#round
    const { search } = this.#list
    this.#set({ loading: true })
    let told: Partial<List>
    try {
      const page = await listConversations({ search, before, limit: PAGE })
      if (round !== this.#round) return
      told = { ...take(page), problem: null }
    } catch (reason) {
      told = { problem: asProblem(reason) }
    }
    if (round === this.#round) this.#set({ ...told, loading: false })
  }

  #set(told: Partial<List>): void {
    this.#list = { ...this.#list, ...told }
    for (const listener of this.#listeners) listener()
  }
}

/** The first page anew, and of the old rows those that come after its end. */
function withFirst({ rows, next }: List, page: ConversationPage): Pick<List, 'rows' | 'next'> {
  const { conversations } = page
  const end = conversations.at(-1)
  if (rows === null || page.next === null || end === undefined) {
    return { rows: conversations, next: page.next }
  }
  const fresh = new Set(conversations.map(({ id }) => id))
  const rest = rows.filter((row) => !fresh.has(row.id) && comesAfter(row, end))
  return rest.length === 0
    ? { rows: conversations, next: page.next }
    : { rows: [...conversations, ...rest], next }
}

function comesAfter(row: ConversationRow, end: ConversationRow): boolean {
  if (row.pinned !== end.pinned) return end.pinned
  return Date.parse(row.updated_at) < Date.parse(end.updated_at)
}
