/** The quality menu's entries, made from the playlist's variants. Pure. */

import { formatBitrate, formatResolution } from './format'

/** What is known of a variant; hls.js's Level has these. */
export interface Variant {
  width: number
  height: number
  frameRate: number
  bitrate: number
}

export interface Quality {
  /** The variant's index in the player. */
  index: number
  label: string
}

/** The index that leaves the choice to the player. */
export const AUTO = -1

/**
 * One entry a variant, best first. Variants that would read the same carry
 * their bit rate too.
 */
export function qualities(variants: readonly Variant[]): Quality[] {
  const entries = variants.map((variant, index) => ({ variant, index, label: name(variant) }))
  entries.sort(
    (a, b) =>
      b.variant.height - a.variant.height ||
      b.variant.frameRate - a.variant.frameRate ||
      b.variant.bitrate - a.variant.bitrate,
  )
  return entries.map(({ variant, index, label }) => {
    const ambiguous = entries.some((other) => other.index !== index && other.label === label)
    return { index, label: ambiguous ? `${label} · ${formatBitrate(variant.bitrate)}` : label }
  })
}

/** "Auto", or "Auto (720p)" once it is known what is playing. */
export function autoLabel(list: readonly Quality[], playing: number): string {
  const current = list.find((quality) => quality.index === playing)
  return current ? `Auto (${current.label})` : 'Auto'
}

/** What the menu's button says: the choice, or what "Auto" has chosen. */
export function buttonLabel(list: readonly Quality[], playing: number): string {
  return list.find((quality) => quality.index === playing)?.label ?? 'Auto'
}

function name(variant: Variant): string {
  if (variant.height > 0) return formatResolution(variant.width, variant.height, variant.frameRate)
  return variant.bitrate > 0 ? formatBitrate(variant.bitrate) : 'Video'
}
