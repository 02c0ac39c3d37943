/**
 * Plays a channel in a video element: hls.js where it runs, the browser's own
 * HLS elsewhere. A plain class; the components only draw what it reports.
 */

import Hls, { ErrorDetails, ErrorTypes, Events, type ErrorData } from 'hls.js'
import type { Phase } from './watch'
import { hlsConfig, randomUUID, rememberBandwidth } from './player-config'
import { AUTO, type Variant } from './quality'
import { retryDelay } from './retry'
import { Sources } from './sources'

/** A viewer who paused for longer than this resumes at the live edge. */
const RESUME_LIVE_AFTER_MS = 10_000
/** Further behind its target than this, without the viewer's will, it jumps ahead. */
const MAX_DRIFT_SECONDS = 8
/** Media flows on the server and none plays: after this long, start over. */
const STUCK_MS = 12_000
/**
 * Enough to go on with after the picture has stopped. Chromium asks for more each
 * time that sound has run dry, up to 3 s; a seek makes it forget that.
 */
const ENOUGH_SECONDS = 0.9
/** Retries of the same load before everything is loaded anew. */
const RETRIES_BEFORE_REBUILD = 4
/** A second media error within this time needs more than recoverMediaError. */
const MEDIA_ERROR_WINDOW_MS = 10_000
/** After leaving an edge that doesn't answer, no other is left for this long. */
const LEAVE_EDGE_EVERY_MS = 2_000
/** This close behind the target counts as "at the live edge". */
const LIVE_EDGE_SLACK_SECONDS = 2

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

/** A snapshot for the stats panel and for tests. Times in seconds unless named otherwise. */
export interface PlayerStats {
  engine: 'hls.js' | 'native' | 'none'
  phase: Phase
  /** How far behind the live edge, as hls.js estimates it. Null when unknown. */
  latency: number | null
  targetLatency: number | null
  /** Media buffered ahead of the playhead. */
  buffer: number
  /** Index of the variant on screen, -1 while unknown. */
  level: number
  width: number
  height: number
  frameRate: number
  /** Of the variant on screen, as its playlist entry says, in bits a second. */
  bitrate: number
  codecs: string
  /** Estimated, in bits a second. */
  bandwidth: number
  playbackRate: number
  droppedFrames: number
  totalFrames: number
  /** hls.js's bufferStalledError since the page was opened. */
  stalls: number
  /** The element's "waiting" after the first picture, seeks not counted. */
  waits: number
  /** Time spent in those waits. */
  waitedMs: number
  /** Fatal errors recovered from. */
  recoveries: number
  /** The newest fatal error's name, of this load. */
  lastError: string | null
  /** From the load to the first picture; null before it. */
  firstPictureMs: number | null
  currentTime: number
  muted: boolean
  sessionId: string
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

  #hls: Hls | null = null
  /** Null while nothing is to be played. */
  #sources: Sources | null = null
  #state: PlayerState = {
    phase: 'idle',
    blocked: 'nothing',
    variants: [],
    chosen: AUTO,
    playing: -1,
  }
  #expectsMedia = false

  #retries = 0
  #retryTimer: ReturnType<typeof setTimeout> | undefined
  #retry: (() => void) | null = null
  #lastMediaError = -Infinity
  /** By pathway (RFC 8216bis, 7), when it failed. */
  readonly #failedAt = new Map<string, number>()
  #leftEdgeAt = -Infinity

  #loadedAt = 0
  #waitingSince: number | null = null
  /** When the watchdog began to count: no earlier than media was to be had. */
  /** Whether this wait was ended by a seek. */
  #wentOn = false
  #stuckSince = 0
  #pausedAt: number | null = null
  /** The viewer went back or paused: being late is what they want. */
  #viewerIsLate = false

  #stalls = 0
  #waits = 0
  #waitedMs = 0
  #recoveries = 0
  #lastError: string | null = null
  #firstPictureMs: number | null = null

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
    this.#loadedAt = performance.now()
    this.#firstPictureMs = null
    this.#lastError = null
    this.#update({ phase: 'loading' })
    this.#build()
  }

  unload(): void {
    this.#teardown()
    this.#sources = null
    this.#retries = 0
    this.#waitingSince = null
    this.#pausedAt = null
    this.#viewerIsLate = false
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
    if (expected && !this.#expectsMedia) {
      this.#stuckSince = performance.now()
      if (this.#retry) this.#retryNow()
    }
    this.#expectsMedia = expected
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
    this.#viewerIsLate = false
    this.#pausedAt = null
    const position = this.#liveEdge()
    if (position !== null && position > this.#video.currentTime) this.#video.currentTime = position
    if (this.#video.paused) void this.play()
  }

  /** Moves the playhead, at most to the live edge. */
  seek(time: number): void {
    const edge = this.#liveEdge()
    if (edge !== null && time >= edge) {
      if (this.#video.currentTime < edge) this.jumpToLive()
      return
    }
    const { seekable } = this.#video
    const first = seekable.length > 0 ? seekable.start(0) : 0
    this.#viewerIsLate = true
    this.#video.currentTime = Math.max(first, time)
  }

  /** Chooses a variant by index, or AUTO. It shows with the next segment. */
  choose(index: number): void {
    if (!this.#hls) return
    this.#hls.nextLevel = index
    this.#update({ chosen: index })
  }

  stats(): PlayerStats {
    const hls = this.#hls
    const video = this.#video
    const level = this.#state.playing
    const details = hls?.levels[level]
    const frames = video.getVideoPlaybackQuality?.()
    const counted = this.#waitingSince !== null && this.#firstPictureMs !== null
    const waitingNow = counted ? performance.now() - (this.#waitingSince ?? 0) : 0
    return {
      engine: hls ? 'hls.js' : this.#sources && !Hls.isSupported() ? 'native' : 'none',
      phase: this.#state.phase,
      latency: hls && hls.latency > 0 ? hls.latency : null,
      targetLatency: hls?.targetLatency ?? null,
      buffer: bufferedAhead(video),
      level,
      width: video.videoWidth,
      height: video.videoHeight,
      frameRate: details?.frameRate ?? 0,
      bitrate: details?.bitrate ?? 0,
      codecs: [details?.videoCodec, details?.audioCodec].filter(Boolean).join(', '),
      bandwidth: hls?.bandwidthEstimate ?? 0,
      playbackRate: video.playbackRate,
      droppedFrames: frames?.droppedVideoFrames ?? 0,
      totalFrames: frames?.totalVideoFrames ?? 0,
      stalls: this.#stalls,
      waits: this.#waits,
      waitedMs: Math.round(this.#waitedMs + waitingNow),
      recoveries: this.#recoveries,
      lastError: this.#lastError,
      firstPictureMs: this.#firstPictureMs,
      currentTime: video.currentTime,
      muted: video.muted,
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
      this.#retries = 0
      this.#update({ variants: hls.levels.map(toVariant), chosen: AUTO })
    })
    hls.on(Events.LEVELS_UPDATED, () => this.#update({ variants: hls.levels.map(toVariant) }))
    hls.on(Events.LEVEL_SWITCHED, (_event, data) => this.#update({ playing: data.level }))
    hls.on(Events.FRAG_BUFFERED, () => {
      this.#retries = 0
      sources.serves(hls.levels[hls.loadLevel]?.url[0] ?? '')
    })
    // Attaching resets the element, which would abort an earlier play().
    hls.on(Events.MEDIA_ATTACHED, () => {
      if (this.#pausedAt === null) void this.play()
    })
    hls.loadSource(sources.current)
    hls.attachMedia(this.#video)
  }

  #teardown(): void {
    clearTimeout(this.#retryTimer)
    this.#retry = null
    rememberBandwidth(this.#hls)
    const native = this.#sources !== null && this.#hls === null
    this.#hls?.destroy()
    this.#hls = null
    if (native) {
      this.#video.removeAttribute('src')
      this.#video.load()
    }
  }

  #rebuild(): void {
    this.#teardown()
    this.#lastMediaError = -Infinity
    this.#stuckSince = performance.now()
    this.#build()
  }

  /** The same at the next edge, where there are more. */
  #rebuildElsewhere(): void {
    this.#sources?.fails()
    this.#rebuild()
  }

  // --- faults ---

  #onError(hls: Hls, data: ErrorData): void {
    if (data.details === ErrorDetails.BUFFER_STALLED_ERROR) this.#stalls++
    if (hls !== this.#hls) return
    const left = data.type === ErrorTypes.NETWORK_ERROR ? this.#leaveEdge(hls, data) : 'stayed'
    if (left === 'refused') {
      this.#retryLater(() => this.#rebuildElsewhere(), 0)
      return
    }
    if (!data.fatal) return
    this.#lastError = data.details
    if (data.type === ErrorTypes.NETWORK_ERROR) {
      this.#retryLater(() => {
        if (this.#retries > RETRIES_BEFORE_REBUILD) {
          this.#rebuildElsewhere()
        } else if (hls.levels.length === 0 && this.#sources) {
          this.#sources.fails()
          hls.loadSource(this.#sources.current)
        } else {
          hls.startLoad()
        }
      })
      if (left === 'moved') this.#retryNow()
      return
    }
    const now = performance.now()
    const first = now - this.#lastMediaError > MEDIA_ERROR_WINDOW_MS
    if (data.type === ErrorTypes.MEDIA_ERROR && first) {
      this.#lastMediaError = now
      this.#recoveries++
      hls.recoverMediaError()
      void this.play()
      return
    }
    this.#retryLater(() => this.#rebuild())
  }

  /**
   * Goes to another edge when this one can't be reached or fails: hls.js by
   * itself would try all its variants there first. It refuses to go back to
   * one that failed minutes ago: then only a new start helps.
   */
  #leaveEdge(hls: Hls, data: ErrorData): 'stayed' | 'moved' | 'refused' {
    const pathways = hls.pathwayPriority
    const level = hls.levels[hls.loadLevel]
    const status = data.response?.code ?? 0
    const asked = data.context?.url ?? data.frag?.url ?? data.url
    if (!pathways || !level || !asked || (status > 0 && status < 500) || !sameHost(asked, level.url[0] ?? '')) {
      return 'stayed'
    }
    const now = performance.now()
    this.#failedAt.set(level.pathwayId, now)
    if (pathways.length < 2 || now - this.#leftEdgeAt < LEAVE_EDGE_EVERY_MS) return 'stayed'
    this.#leftEdgeAt = now
    const failed = (id: string) => this.#failedAt.get(id) ?? 0
    hls.pathwayPriority = [...pathways].sort((a, b) => failed(a) - failed(b))
    return hls.levels[hls.loadLevel]?.pathwayId === level.pathwayId ? 'refused' : 'moved'
  }

  /** Tries again after a wait that grows, for as long as this load is wanted. */
  #retryLater(retry: () => void, delay = retryDelay(this.#retries)): void {
    clearTimeout(this.#retryTimer)
    this.#retry = retry
    this.#retryTimer = setTimeout(() => this.#retryNow(), delay)
  }

  #retryNow(): void {
    clearTimeout(this.#retryTimer)
    const retry = this.#retry
    this.#retry = null
    this.#retries++
    this.#recoveries++
    retry?.()
  }

  // --- the video element ---

  #listen(): void {
    const video = this.#video
    const on = <K extends keyof HTMLMediaElementEventMap>(type: K, handler: () => void) =>
      video.addEventListener(type, handler, { signal: this.#listeners.signal })

    on('playing', () => this.#onPlaying())
    on('waiting', () => this.#onWaiting())
    on('progress', () => this.#goOn())
    on('timeupdate', () => {
      // Media moves again: some browsers say so only here.
      if (this.#state.phase === 'waiting' && !video.paused && video.readyState >= 3) this.#onPlaying()
    })
    on('pause', () => {
      if (this.#sources === null || video.ended) return
      this.#pausedAt = performance.now()
      this.#viewerIsLate = true
      this.#endWait()
      this.#update({ phase: 'paused' })
    })
    on('play', () => {
      const paused = this.#pausedAt
      this.#pausedAt = null
      if (paused !== null && performance.now() - paused > RESUME_LIVE_AFTER_MS) this.jumpToLive()
    })
    on('ended', () => this.#onEnded())
    window.addEventListener('pagehide', () => rememberBandwidth(this.#hls), {
      signal: this.#listeners.signal,
    })
    on('volumechange', () => {
      if (!video.muted && this.#state.blocked === 'sound') this.#update({ blocked: 'nothing' })
    })
    on('error', () => {
      if (this.#hls === null && this.#sources !== null) {
        this.#lastError = video.error?.message || 'native'
        this.#retryLater(() => this.#rebuild())
      }
    })
    Object.defineProperty(video, 'liveEdgeStart', {
      configurable: true,
      get: () => (this.#liveEdge() ?? NaN) - LIVE_EDGE_SLACK_SECONDS,
    })
  }

  #onPlaying(): void {
    if (this.#sources === null) return
    this.#endWait()
    this.#firstPictureMs ??= Math.round(performance.now() - this.#loadedAt)
    this.#update({ phase: 'playing', blocked: this.#state.blocked === 'play' ? 'nothing' : this.#state.blocked })
  }

  #onWaiting(): void {
    if (this.#sources === null || this.#video.paused || this.#video.ended) return
    if (this.#waitingSince === null) {
      this.#waitingSince = performance.now()
      this.#stuckSince = this.#waitingSince
      this.#wentOn = false
      if (this.#firstPictureMs !== null && !this.#video.seeking) this.#waits++
    }
    this.#update({ phase: this.#firstPictureMs === null ? 'loading' : 'waiting' })
  }

  /** Plays what has come after a stop, where the browser waits for more. */
  #goOn(): void {
    const video = this.#video
    const waits = this.#waitingSince !== null && this.#firstPictureMs !== null
    if (!waits || this.#wentOn || video.paused || video.seeking || bufferedAhead(video) < ENOUGH_SECONDS) return
    this.#wentOn = true
    video.currentTime = video.currentTime
  }

  #endWait(): void {
    if (this.#waitingSince === null) return
    if (this.#firstPictureMs !== null) this.#waitedMs += performance.now() - this.#waitingSince
    this.#waitingSince = null
  }

  #onEnded(): void {
    if (this.#sources === null) return
    this.#endWait()
    this.#update({ phase: 'ended' })
  }

  #liveEdge(): number | null {
    if (this.#hls) return this.#hls.liveSyncPosition
    const { seekable } = this.#video
    return seekable.length > 0 ? seekable.end(seekable.length - 1) : null
  }

  /** Looks once a second for what no event tells. */
  #tick(): void {
    const hls = this.#hls
    if (!hls || this.#state.phase === 'idle') return
    const waited = this.#waitingSince === null ? 0 : performance.now() - this.#waitingSince

    // The playlist has ended, and the playhead stopped a hair before the end.
    const ended = hls.latestLevelDetails?.live === false
    if (ended && waited > 1_500 && bufferedAhead(this.#video) < 0.3) {
      this.#onEnded()
      return
    }
    const stuck = waited > 0 && performance.now() - this.#stuckSince > STUCK_MS
    if (this.#expectsMedia && stuck && !this.#retry) {
      this.#lastError = 'stuck'
      this.#retries++
      this.#recoveries++
      this.#rebuildElsewhere()
      return
    }
    const target = hls.targetLatency
    if (target === null || hls.latency === 0 || this.#video.paused) return
    const drift = hls.latency - target
    if (drift < LIVE_EDGE_SLACK_SECONDS) this.#viewerIsLate = false
    if (this.#expectsMedia && !this.#viewerIsLate && drift > MAX_DRIFT_SECONDS) this.jumpToLive()
  }

  #update(change: Partial<PlayerState>): void {
    const next = { ...this.#state, ...change }
    const keys = Object.keys(change) as (keyof PlayerState)[]
    if (keys.every((key) => this.#state[key] === next[key])) return
    this.#state = next
    this.#onChange(next)
  }
}

function sameHost(a: string, b: string): boolean {
  const { href } = window.location
  try {
    return new URL(a, href).host === new URL(b, href).host
  } catch {
    return false
  }
}

function toVariant(level: Variant): Variant {
  const { width, height, frameRate, bitrate } = level
  return { width, height, frameRate, bitrate }
}

function bufferedAhead(video: HTMLVideoElement): number {
  const { buffered, currentTime } = video
  for (let i = 0; i < buffered.length; i++) {
    if (buffered.start(i) <= currentTime + 0.1 && currentTime <= buffered.end(i)) {
      return buffered.end(i) - currentTime
    }
  }
  return 0
}

/** "aborted": a later load took the element; it will call play() itself. */
async function tryToPlay(video: HTMLVideoElement): Promise<'played' | 'refused' | 'aborted'> {
  try {
    await video.play()
    return 'played'
  } catch (error) {
    return error instanceof DOMException && error.name === 'NotAllowedError' ? 'refused' : 'aborted'
  }
}
