/**
 * The share of the person who looks, kept up to date.
 *
 * The server pushes over a websocket whenever something changes. Where no
 * socket can be had (an old proxy, too many pages open), and until it is back
 * after a break, the same is asked for every few seconds. Nobody is asked while
 * the page is hidden. It stands outside React, so that none of this depends on
 * what is drawn.
 */
import { api, type Share, value } from '../api/client'
import { asProblem, isRecord, type Problem } from '../api/errors'
import { type Turn, told } from '../ui/turn'

export interface ShareState {
  /** The last thing the server said; null until it has spoken. */
  data: Share | null
  /** When it said so, on the clock of `performance.now()`. */
  at: number
  /** When it is the turn of one's own requests that wait, by id. */
  turns: ReadonlyMap<string, Turn>
  problem: Problem | null
  /** Whether changes are pushed at present. */
  live: boolean
}

const POLL_MS = 5000
/** A socket that is silent for so long after it was asked for may have been swallowed on the way. */
const SILENCE_MS = 3000
const BACK_OFF_MS = [1000, 2000, 4000, 8000, 16_000, 30_000]

export class ShareFeed {
  #state: ShareState = { data: null, at: 0, turns: new Map(), problem: null, live: false }
  #socket: WebSocket | null = null
  #failures = 0
  #reconnect: ReturnType<typeof setTimeout> | undefined
  #silence: ReturnType<typeof setTimeout> | undefined
  #nextPoll: ReturnType<typeof setTimeout> | undefined
  /** Stands for the polling that goes on; an answer to an earlier one is dropped. */
  #polling: object | null = null
  readonly #listeners = new Set<() => void>()

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  readonly current = (): ShareState => this.#state

  readonly start = (): void => {
    document.addEventListener('visibilitychange', this.#look)
    this.#look()
  }

  readonly stop = (): void => {
    document.removeEventListener('visibilitychange', this.#look)
    this.#rest()
  }

  readonly #look = (): void => {
    this.#rest()
    if (!document.hidden) this.#connect()
  }

  #rest(): void {
    clearTimeout(this.#reconnect)
    clearTimeout(this.#silence)
    this.#failures = 0
    this.#endPolling()
    // Forgotten first, so that its end does not look like a break.
    const socket = this.#socket
    this.#socket = null
    socket?.close()
  }

  #connect(): void {
    let socket: WebSocket
    try {
      socket = new WebSocket(address())
    } catch {
      this.#lost()
      return
    }
    this.#socket = socket
    this.#silence = setTimeout(() => this.#beginPolling(), SILENCE_MS)
    socket.onmessage = ({ data }) => {
      const share = shareOf(data)
      if (this.#socket !== socket || share === null) return
      clearTimeout(this.#silence)
      this.#failures = 0
      this.#endPolling()
      this.#learn(share, true)
    }
    socket.onclose = () => {
      if (this.#socket !== socket) return
      this.#socket = null
      this.#lost()
    }
  }

  #lost(): void {
    clearTimeout(this.#silence)
    const wait = BACK_OFF_MS[Math.min(this.#failures, BACK_OFF_MS.length - 1)]
    this.#failures++
    this.#reconnect = setTimeout(() => this.#connect(), wait)
    this.#beginPolling()
  }

  #beginPolling(): void {
    if (this.#polling !== null) return
    const mine = {}
    this.#polling = mine
    const ask = async () => {
      const answer = await value(api.GET('/api/share')).catch(asProblem)
      if (this.#polling !== mine) return
      if (answer instanceof Error) this.#set({ problem: answer, live: false })
      else this.#learn(answer, false)
      this.#nextPoll = setTimeout(ask, POLL_MS)
    }
    void ask()
  }

  #endPolling(): void {
    clearTimeout(this.#nextPoll)
    this.#polling = null
  }

  #learn(data: Share, live: boolean): void {
    const at = performance.now()
    const turns = new Map<string, Turn>()
    for (const { id, state, ahead, wait_ms } of data.requests) {
      if (state !== 'queued') continue
      turns.set(id, told(this.#state.turns.get(id) ?? null, ahead ?? null, wait_ms ?? null, at))
    }
    this.#set({ data, at, turns, problem: null, live })
  }

  #set(news: Partial<ShareState>): void {
    this.#state = { ...this.#state, ...news }
    for (const listener of this.#listeners) listener()
  }
}

function address(): URL {
  const url = new URL('/api/live', window.location.href)
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
  return url
}

function shareOf(message: unknown): Share | null {
  if (typeof message !== 'string') return null
  try {
    const share: unknown = JSON.parse(message)
    return isRecord(share) && Array.isArray(share.engines) ? (share as unknown as Share) : null
  } catch {
    return null
  }
}
