/**
 * Plays a channel in a video element: hls.js where it runs, the browser's own
 * HLS elsewhere. A plain class; the components only draw what it reports. What
 * to do when something goes wrong is decided in recovery.ts.
 */

import Hls, { ErrorDetails, Events, type ErrorData, type Level } from 'hls.js'
import { bufferedAhead, seekableEnd, seekableStart, tryToPlay } from './element'
import { failedEdge, faultOf } from './hls-fault'
import { Meter, type PlayerStats } from './meter'
import { hlsConfig, randomUUID, rememberBandwidth } from './player-config'
import { AUTO, autoAfter, type Variant } from './quality'
import { initialRecovery, LIVE_EDGE_SLACK_SECONDS, next, type RecoveryAction, type RecoveryEvent } from './recovery'
import { retryDelay } from './retry'
import { Sources } from './sources'
import type { Phase } from './watch'

/** What the browser's autoplay policy forbade: sound, or playing at all. */
export type Blocked = 'nothing' | 'sound' | 'play'

/** What the components draw. A new object at each change. */
export interface PlayerState {
  phase: Phase
  blocked: Blocked
  variants: readonly Variant[]
  /** The viewer's choice, AUTO or an index into `variants`. */
  chosen: number
  /** The variant on screen, -1 while unknown. */
  playing: number
}

export interface PlayerConfig {
  video: HTMLVideoElement
  channel: string
  onChange: (state: PlayerState) => void
}

export class Player {
  readonly #video: HTMLVideoElement
  readonly #channel: string
  readonly #onChange: (state: PlayerState) => void
  /** One viewer: the same in every request of this page (CMCD's "sid"). */
  readonly #sessionId = randomUUID()
  readonly #listeners = new AbortController()
  readonly #clock: ReturnType<typeof setInterval>
  readonly #meter = new Meter()

  #hls: Hls | null = null
  /** Null while nothing is to be played. */
  #sources: Sources | null = null
  #state: PlayerState = { phase: 'idle', blocked: 'nothing', variants: [], chosen: AUTO, playing: -1 }
  #recovery = initialRecovery()
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(config: PlayerConfig) {
    this.#video = config.video
    this.#channel = config.channel
    this.#onChange = config.onChange
    this.#listen()
    this.#clock = setInterval(() => this.#tick(), 1_000)
  }

  get hls(): Hls | null {
    return this.#hls
  }

  get state(): PlayerState {
    return this.#state
  }

  /** Loads a multivariant playlist and plays from its live edge. */
  load(url: string): void {
    this.unload()
    this.#sources = new Sources(new URL(url, window.location.href).href)
    this.#meter.load(performance.now())
    this.#report({ type: 'load' })
    this.#update({ phase: 'loading' })
    this.#build()
  }

  unload(): void {
    this.#teardown()
    this.#sources = null
    this.#report({ type: 'unload' })
    this.#update({ phase: 'idle', variants: [], playing: -1 })
  }

  destroy(): void {
    this.unload()
    clearInterval(this.#clock)
    this.#listeners.abort()
  }

  /**
   * Says whether the server has media for us now. When it comes to have some
   * again, a pending retry happens at once.
   */
  expectMedia(expected: boolean): void {
    this.#report({ type: 'expect', expected })
  }

  /** Plays, with sound if the browser allows it, otherwise without. */
  async play(): Promise<void> {
    const outcome = await tryToPlay(this.#video)
    if (outcome === 'played') this.#update({ blocked: this.#video.muted ? this.#state.blocked : 'nothing' })
    if (outcome !== 'refused') return
    const wasMuted = this.#video.muted
    this.#video.muted = true
    const again = await tryToPlay(this.#video)
    if (again === 'refused') {
      this.#video.muted = wasMuted
      this.#update({ blocked: 'play', phase: 'paused' })
    } else {
      this.#update({ blocked: wasMuted ? 'nothing' : 'sound' })
    }
  }

  /** What the "click to unmute" and "play" buttons do: to be called from a click. */
  unblock(): void {
    this.#video.muted = false
    if (this.#video.volume === 0) this.#video.volume = 1
    this.#update({ blocked: 'nothing' })
    if (this.#video.paused) void this.play()
  }

  jumpToLive(): void {
    this.#report({ type: 'jump' })
  }

  /** Moves the playhead, at most to the live edge. */
  seek(time: number): void {
    const edge = this.#liveEdge()
    if (edge !== null && time >= edge) {
      if (this.#video.currentTime < edge) this.jumpToLive()
      return
    }
    this.#report({ type: 'sought' })
    this.#video.currentTime = Math.max(seekableStart(this.#video), time)
  }

  /** Chooses a variant by index, or AUTO. It shows with the next segment. */
  choose(index: number): void {
    const hls = this.#hls
    if (!hls) return
    const after = index === AUTO ? autoAfter(this.#state.variants, this.#state.playing, hls.bandwidthEstimate) : AUTO
    if (after !== AUTO) hls.nextAutoLevel = after
    hls.nextLevel = index
    this.#update({ chosen: index })
  }

  /** When what is on the screen was there (EXT-X-PROGRAM-DATE-TIME), in milliseconds since 1970; null before a picture. */
  moment(): number | null {
    if (this.#hls) return this.#hls.playingDate?.getTime() ?? null
    const video = this.#video as HTMLVideoElement & { getStartDate?: () => Date }
    const start = video.getStartDate?.().getTime() ?? NaN // Safari's
    return Number.isNaN(start) ? null : start + video.currentTime * 1_000
  }

  stats(): PlayerStats {
    const { waitingSince, recoveries, lastError } = this.#recovery
    const waitingMs = waitingSince === null ? 0 : performance.now() - waitingSince
    return {
      engine: this.#hls ? 'hls.js' : this.#sources && !Hls.isSupported() ? 'native' : 'none',
      phase: this.#state.phase,
      ...this.#meter.read(this.#video, this.#hls, this.#state.playing, waitingMs),
      recoveries,
      lastError,
      sessionId: this.#sessionId,
    }
  }

  // --- loading ---

  #build(): void {
    const sources = this.#sources
    if (sources === null) return
    // hls.js first: Chromium says "maybe" to HLS of its own, too.
    if (!Hls.isSupported()) {
      this.#video.src = sources.current
      void this.play()
      return
    }
    const hls = new Hls(hlsConfig(this.#channel, this.#sessionId))
    this.#hls = hls
    hls.on(Events.ERROR, (_event, data) => this.#onError(hls, data))
    hls.on(Events.MANIFEST_LOADED, (_event, data) => sources.learn(data.levels.map((level) => level.url)))
    hls.on(Events.MANIFEST_PARSED, () => {
      this.#report({ type: 'listed' })
      this.#update({ variants: hls.levels.map(toVariant), chosen: AUTO })
    })
    hls.on(Events.LEVELS_UPDATED, () => this.#update({ variants: hls.levels.map(toVariant) }))
    hls.on(Events.LEVEL_SWITCHED, (_event, data) => this.#update({ playing: data.level }))
    hls.on(Events.FRAG_BUFFERED, () => {
      this.#report({ type: 'media' })
      sources.serves(hls.levels[hls.loadLevel]?.url[0] ?? '')
    })
    // Attaching resets the element, which would abort an earlier play().
    hls.on(Events.MEDIA_ATTACHED, () => {
      if (this.#recovery.pausedAt === null) void this.play()
    })
    hls.loadSource(sources.current)
    hls.attachMedia(this.#video)
  }

  #teardown(): void {
    clearTimeout(this.#timer)
    rememberBandwidth(this.#hls)
    const native = this.#sources !== null && this.#hls === null
    this.#hls?.destroy()
    this.#hls = null
    if (native) {
      this.#video.removeAttribute('src')
      this.#video.load()
    }
  }

  // --- faults ---

  #onError(hls: Hls, data: ErrorData): void {
    if (data.details === ErrorDetails.BUFFER_STALLED_ERROR) this.#meter.stalls++
    if (hls !== this.#hls) return
    this.#report({ type: 'error', fault: faultOf(data), edge: failedEdge(hls, data, window.location.href) })
  }

  /** Tells the recovery what has happened, and does what it says. */
  #report(event: RecoveryEvent): void {
    const [state, ...actions] = next(this.#recovery, event, performance.now())
    this.#recovery = state
    for (const action of actions) this.#perform(action)
  }

  #perform(action: RecoveryAction): void {
    const hls = this.#hls
    switch (action.do) {
      case 'wait':
        clearTimeout(this.#timer)
        this.#timer = setTimeout(
          () => this.#report({ type: 'due' }),
          action.retries === null ? 0 : retryDelay(action.retries),
        )
        break
      case 'start load':
        hls?.startLoad()
        break
      case 'load elsewhere':
        this.#sources?.fails()
        if (this.#sources) hls?.loadSource(this.#sources.current)
        break
      case 'rebuild elsewhere':
        this.#sources?.fails()
        this.#rebuild()
        break
      case 'rebuild':
        this.#rebuild()
        break
      case 'prefer':
        if (hls) this.#prefer(hls, action.pathways)
        break
      case 'recover media':
        hls?.recoverMediaError()
        void this.play()
        break
      case 'nudge':
        this.#video.currentTime = this.#video.currentTime
        break
      case 'jump to live': {
        const position = this.#liveEdge()
        if (position !== null && position > this.#video.currentTime) this.#video.currentTime = position
        if (this.#video.paused) void this.play()
        break
      }
      case 'end':
        this.#onEnded()
        break
    }
  }

  #rebuild(): void {
    this.#teardown()
    this.#build()
  }

  #prefer(hls: Hls, pathways: readonly string[]): void {
    const before = hls.levels[hls.loadLevel]?.pathwayId
    hls.pathwayPriority = [...pathways]
    this.#report({ type: 'preferred', moved: hls.levels[hls.loadLevel]?.pathwayId !== before })
  }

  // --- the video element ---

  #listen(): void {
    const video = this.#video
    const { signal } = this.#listeners
    const on = <K extends keyof HTMLMediaElementEventMap>(type: K, handler: () => void) =>
      video.addEventListener(type, handler, { signal })

    on('playing', () => this.#onPlaying())
    on('waiting', () => this.#onWaiting())
    on('progress', () =>
      this.#report({ type: 'progress', buffered: bufferedAhead(video), held: video.paused || video.seeking }),
    )
    on('timeupdate', () => {
      // Media moves again: some browsers say so only here.
      if (this.#state.phase === 'waiting' && !video.paused && video.readyState >= 3) this.#onPlaying()
    })
    on('pause', () => {
      if (this.#sources === null || video.ended) return
      this.#endWait()
      this.#report({ type: 'paused' })
      this.#update({ phase: 'paused' })
    })
    on('play', () => this.#report({ type: 'resumed' }))
    on('ended', () => this.#onEnded())
    on('volumechange', () => {
      if (!video.muted && this.#state.blocked === 'sound') this.#update({ blocked: 'nothing' })
    })
    on('error', () => {
      if (this.#hls !== null || this.#sources === null) return
      const fault = { kind: 'other', fatal: true, name: video.error?.message || 'native' } as const
      this.#report({ type: 'error', fault, edge: null })
    })
    window.addEventListener('pagehide', () => rememberBandwidth(this.#hls), { signal })
    Object.defineProperty(video, 'liveEdgeStart', {
      configurable: true,
      get: () => (this.#liveEdge() ?? NaN) - LIVE_EDGE_SLACK_SECONDS,
    })
  }

  #onPlaying(): void {
    if (this.#sources === null) return
    this.#endWait()
    this.#meter.picture(performance.now())
    this.#report({ type: 'playing' })
    this.#update({ phase: 'playing', blocked: this.#state.blocked === 'play' ? 'nothing' : this.#state.blocked })
  }

  #onWaiting(): void {
    if (this.#sources === null || this.#video.paused || this.#video.ended) return
    if (this.#recovery.waitingSince === null && !this.#video.seeking) this.#meter.waitBegins()
    this.#report({ type: 'waiting' })
    this.#update({ phase: this.#recovery.pictured ? 'waiting' : 'loading' })
  }

  #onEnded(): void {
    if (this.#sources === null) return
    this.#endWait()
    this.#report({ type: 'ended' })
    this.#update({ phase: 'ended' })
  }

  #endWait(): void {
    const { waitingSince } = this.#recovery
    if (waitingSince !== null) this.#meter.waitEnds(performance.now() - waitingSince)
  }

  #liveEdge(): number | null {
    return this.#hls ? this.#hls.liveSyncPosition : seekableEnd(this.#video)
  }

  #tick(): void {
    const hls = this.#hls
    if (!hls || this.#state.phase === 'idle') return
    this.#report({
      type: 'tick',
      over: hls.latestLevelDetails?.live === false,
      buffered: bufferedAhead(this.#video),
      latency: hls.latency === 0 ? null : hls.latency,
      target: hls.targetLatency,
      paused: this.#video.paused,
    })
  }

  #update(change: Partial<PlayerState>): void {
    const after = { ...this.#state, ...change }
    const keys = Object.keys(change) as (keyof PlayerState)[]
    if (keys.every((key) => this.#state[key] === after[key])) return
    this.#state = after
    this.#onChange(after)
  }
}

function toVariant(level: Level): Variant {
  const { width, height, frameRate, bitrate, videoCodec } = level
  return { width, height, frameRate, bitrate, videoCodec: videoCodec ?? '' }
}
