/** How numbers and times are written on the pages. Pure. */

import type { Video } from './api'

/** "0:07", "12:04", "1:02:03", "26:00:00": how long something has lasted. */
export function formatDuration(ms: number): string {
  const total = Number.isFinite(ms) ? Math.max(0, Math.floor(ms / 1000)) : 0
  const hours = Math.floor(total / 3600)
  const minutes = Math.floor((total % 3600) / 60)
  const seconds = String(total % 60).padStart(2, '0')
  if (hours === 0) return `${minutes}:${seconds}`
  return `${hours}:${String(minutes).padStart(2, '0')}:${seconds}`
}

/** The time since an RFC 3339 instant; null when there is none. */
export function formatUptime(startedAt: string | null, now: number): string | null {
  if (startedAt === null) return null
  const start = Date.parse(startedAt)
  return Number.isNaN(start) ? null : formatDuration(now - start)
}

/** "7", "999", "1.2K", "34K", "1.2M". It rounds down: never more than there are. */
export function formatCount(count: number): string {
  if (!Number.isFinite(count) || count <= 0) return '0'
  if (count < 1_000) return String(Math.floor(count))
  if (count < 1_000_000) return scaled(count / 1_000, 'K')
  return scaled(count / 1_000_000, 'M')
}

function scaled(value: number, unit: string): string {
  const shown = value < 10 ? Math.floor(value * 10) / 10 : Math.floor(value)
  return `${shown}${unit}`
}

/** "1 viewer", "12 viewers", "1.2K viewers". */
export function formatViewers(count: number): string {
  const shown = formatCount(count)
  return `${shown} ${shown === '1' ? 'viewer' : 'viewers'}`
}

/** "720p", "1080p60": the short side, and the frame rate where it is above 30. */
export function formatResolution(width: number, height: number, frameRate = 0): string {
  const short = width > 0 ? Math.min(width, height) : height
  const rate = Math.round(frameRate)
  return rate > 30 ? `${short}p${rate}` : `${short}p`
}

export function formatVideo(video: Video | null): string | null {
  return video && video.height > 0
    ? formatResolution(video.width, video.height, video.frame_rate)
    : null
}

/** "5.2 Mb/s", "640 kb/s". */
export function formatBitrate(bitsPerSecond: number): string {
  if (!Number.isFinite(bitsPerSecond) || bitsPerSecond <= 0) return '–'
  if (bitsPerSecond < 1_000_000) return `${Math.round(bitsPerSecond / 1_000)} kb/s`
  return `${(bitsPerSecond / 1_000_000).toFixed(1)} Mb/s`
}

/** "1.24 s". */
export function formatSeconds(seconds: number | null): string {
  return seconds === null || !Number.isFinite(seconds) ? '–' : `${seconds.toFixed(2)} s`
}

const THUMBNAIL_PERIOD_MS = 5_000

/** A thumbnail's address, another one every 5 s, so that no cache keeps it longer. */
export function thumbnailURL(path: string, now: number): string {
  return `${path}?t=${Math.floor(now / THUMBNAIL_PERIOD_MS)}`
}
