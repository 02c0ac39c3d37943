/**
 * The multivariant playlists from which a channel can be loaded: the page's own
 * address, and that of each edge that a playlist has named.
 */
export class Sources {
  /** The page's own first. */
  #known: string[]
  #at = 0

  constructor(own: string) {
    this.#known = [own]
  }

  get current(): string {
    return this.#known[this.#at] ?? ''
  }

  /** Takes the addresses in a multivariant playlist, which name all edges that there are now. */
  learn(urls: readonly string[]): void {
    const own = this.#known[0] ?? ''
    const { current } = this
    this.#known = [...new Set([own, current, ...urls.flatMap((url) => multivariantOf(url) ?? [])])]
    this.#at = this.#known.indexOf(current)
  }

  /** Media came from this address: what failed before doesn't matter any more. */
  serves(url: string): void {
    const found = multivariantOf(url)
    if (found === null) return
    if (!this.#known.includes(found)) this.#known.push(found)
    this.#at = this.#known.indexOf(found)
  }

  /** The current one doesn't serve: it is the next one's turn. */
  fails(): void {
    this.#at = (this.#at + 1) % this.#known.length
  }
}

/** "https://edge/hls/channel/index.m3u8" of any address below it; null where it is none. */
function multivariantOf(url: string): string | null {
  const found = /^https?:\/\/[^/]+.*?\/hls\/[^/]+\//.exec(url)
  return found ? `${found[0]}index.m3u8` : null
}
