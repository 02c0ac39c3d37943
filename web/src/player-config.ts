/** How hls.js is set up, and what it starts from. */

import Hls, { type HlsConfig, type LoadPolicy } from 'hls.js'

const BANDWIDTH_KEY = 'millrace.bandwidth'
/** Bits a second, where no earlier visit says better. */
const FIRST_BANDWIDTH = 5_000_000

/**
 * An edge that is gone lets a multivariant playlist wait for ever; one that works,
 * for 6.2 s at most, while a broadcast begins.
 */
const MANIFEST_MS = 7_000

export function hlsConfig(channel: string, sessionId: string): Partial<HlsConfig> {
  return {
    lowLatencyMode: true,
    // Makes good what was lost at the start and in stalls. The target is the
    // playlist's PART-HOLD-BACK: liveSyncDuration would override it.
    maxLiveSyncPlaybackRate: 1.5,
    liveDurationInfinity: true,
    maxBufferLength: 30,
    backBufferLength: 30,
    // The quickest first picture: no test download, no wait for the element,
    // and a first level for the bandwidth that was seen last time.
    testBandwidth: false,
    startFragPrefetch: true,
    startLevel: -1,
    abrEwmaDefaultEstimate: rememberedBandwidth(),
    capLevelToPlayerSize: true,
    // hls.js adapts within one format. Where the source is in a newer one, it has
    // that to itself: there is no smaller variant for a network that gets slower,
    // and a device may decode it with effort. Viewers choose it from the menu.
    videoPreference: { videoCodec: 'avc1' },
    // The defaults wait up to 8 s between tries: too long for live.
    manifestLoadPolicy: oneTry(MANIFEST_MS),
    playlistLoadPolicy: withRetries(Hls.DefaultConfig.playlistLoadPolicy, 2, 10_000),
    fragLoadPolicy: withRetries(Hls.DefaultConfig.fragLoadPolicy, 4, 5_000),
    // fMP4 needs no repackaging: a worker would cost its start and copies.
    enableWorker: false,
    cmcd: { sessionId, contentId: channel, useHeaders: false },
  }
}

/** An edge may hold an answer back for as long as firstByteMs; after that it hangs. */
function withRetries(policy: LoadPolicy, tries: number, firstByteMs: number): LoadPolicy {
  const errorRetry = { maxNumRetry: tries, retryDelayMs: 250, maxRetryDelayMs: 1_000 }
  return { default: { ...policy.default, errorRetry, maxTimeToFirstByteMs: firstByteMs } }
}

/** The player itself tries again, at another edge where there is one. */
function oneTry(ms: number): LoadPolicy {
  return { default: { maxTimeToFirstByteMs: ms, maxLoadTimeMs: ms, timeoutRetry: null, errorRetry: null } }
}

function rememberedBandwidth(): number {
  try {
    const kept = Number(localStorage.getItem(BANDWIDTH_KEY))
    if (kept > 0) return Math.max(300_000, kept * 0.7)
  } catch {
    // Storage is forbidden: start from the guess.
  }
  return FIRST_BANDWIDTH
}

/** Keeps the estimate for the next visit's first choice of a variant. */
export function rememberBandwidth(hls: Hls | null): void {
  if (!hls || !(hls.bandwidthEstimate > 0) || hls.levels.length === 0) return
  try {
    localStorage.setItem(BANDWIDTH_KEY, String(Math.round(hls.bandwidthEstimate)))
  } catch {
    // Storage is forbidden: nothing is remembered.
  }
}

/** A version 4 UUID, also on plain http, where crypto.randomUUID isn't. */
export function randomUUID(): string {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID()
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-')
}
