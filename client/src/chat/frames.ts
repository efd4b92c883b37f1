/**
 * Gathers items and hands them on once per animation frame. A fast engine
 * sends hundreds of tokens a second; the screen shows sixty pictures of them.
 * In a hidden tab no frames come, and the items simply wait.
 */
export class FrameBatch<T> {
  readonly #deliver: (items: T[]) => void
  #items: T[] = []
  #frame: number | null = null

  constructor(deliver: (items: T[]) => void) {
    this.#deliver = deliver
  }

  add(item: T): void {
    this.#items.push(item)
    this.#frame ??= requestAnimationFrame(() => this.flush())
  }

  /** Hands on what is there without waiting for the frame. */
  flush(): void {
    if (this.#frame !== null) cancelAnimationFrame(this.#frame)
    this.#frame = null
    if (this.#items.length === 0) return
    const items = this.#items
    this.#items = []
    this.#deliver(items)
  }
}
