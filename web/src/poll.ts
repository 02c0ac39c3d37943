import { spread } from './retry'

const JITTER = 0.2

export interface PollerConfig {
  /** Asks once. It must not reject unless the signal is aborted. */
  ask: (signal: AbortSignal) => Promise<void>
  /** How long to wait after an answer, in milliseconds. */
  delay: (hidden: boolean) => number
}

/**
 * Asks the server again and again, one question at a time, at once when the
 * page becomes visible. It works from construction until `stop`.
 */
export class Poller {
  readonly #config: PollerConfig
  readonly #stopped = new AbortController()
  #timer: ReturnType<typeof setTimeout> | undefined
  #asking = false

  constructor(config: PollerConfig) {
    this.#config = config
    document.addEventListener(
      'visibilitychange',
      () => (document.hidden ? this.#schedule() : this.poke()),
      { signal: this.#stopped.signal },
    )
    this.poke()
  }

  /** Asks now, unless a question is on its way. */
  poke(): void {
    if (!this.#asking) void this.#ask()
  }

  stop(): void {
    this.#stopped.abort()
    clearTimeout(this.#timer)
  }

  async #ask(): Promise<void> {
    clearTimeout(this.#timer)
    this.#asking = true
    try {
      await this.#config.ask(this.#stopped.signal)
    } finally {
      this.#asking = false
      this.#schedule()
    }
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#stopped.signal.aborted || this.#asking) return
    const wait = spread(this.#config.delay(document.hidden), JITTER)
    this.#timer = setTimeout(() => this.poke(), wait)
  }
}
