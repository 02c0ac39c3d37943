/** Counts what a viewer notices, for the stats panel and for tests. */

import type Hls from 'hls.js'
import { bufferedAhead } from './element'
import type { Phase } from './watch'

/** A snapshot. Times in seconds unless named otherwise. */
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

export class Meter {
  stalls = 0
  #waits = 0
  #waitedMs = 0
  #firstPictureMs: number | null = null
  #loadedAt = 0

  load(now: number): void {
    this.#loadedAt = now
    this.#firstPictureMs = null
  }

  picture(now: number): void {
    this.#firstPictureMs ??= Math.round(now - this.#loadedAt)
  }

  /** The picture stands for lack of media. Before the first one that is no wait. */
  waitBegins(): void {
    if (this.#firstPictureMs !== null) this.#waits++
  }

  waitEnds(ms: number): void {
    if (this.#firstPictureMs !== null) this.#waitedMs += ms
  }

  /** What the element and hls.js say now, and what was counted. waitingMs: of a wait that goes on. */
  read(video: HTMLVideoElement, hls: Hls | null, level: number, waitingMs: number) {
    const details = hls?.levels[level]
    const frames = video.getVideoPlaybackQuality?.()
    return {
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
      stalls: this.stalls,
      waits: this.#waits,
      waitedMs: Math.round(this.#waitedMs + (this.#firstPictureMs === null ? 0 : waitingMs)),
      firstPictureMs: this.#firstPictureMs,
      currentTime: video.currentTime,
      muted: video.muted,
    }
  }
}
