/** The quality menu's entries, made from the playlist's variants. Pure. */

import { formatBitrate, formatResolution } from './format'

/** What is known of a variant; hls.js's Level has these. */
export interface Variant {
  width: number
  height: number
  frameRate: number
  bitrate: number
  /** The picture's, as the playlist has it, such as "avc1.64001f"; empty where it doesn't say. */
  videoCodec: string
}

export interface Quality {
  /** The variant's index in the player. */
  index: number
  label: string
}

/** The index that leaves the choice to the player. */
export const AUTO = -1

/**
 * One entry a variant, best first: of a size, the source in a newer format stands
 * before the rung in H.264. Variants that would read the same carry their bit rate
 * too.
 */
export function qualities(variants: readonly Variant[]): Quality[] {
  const entries = variants.map((variant, index) => ({ variant, index, label: name(variant) }))
  entries.sort(
    (a, b) =>
      b.variant.height - a.variant.height ||
      b.variant.frameRate - a.variant.frameRate ||
      Number(format(b.variant) !== H264) - Number(format(a.variant) !== H264) ||
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

/**
 * Where "Auto" goes on after a variant in another format was chosen: hls.js stays
 * within a format, and only H.264 has several variants to adapt with. The best one
 * for this many bits a second, else the smallest; AUTO where nothing is to be
 * done, as the variant on screen has its like.
 */
export function autoAfter(variants: readonly Variant[], playing: number, bandwidth: number): number {
  const current = variants[playing]
  if (!current || format(current) === H264) return AUTO
  const rungs = variants.flatMap((variant, index) => (format(variant) === H264 ? [{ index, ...variant }] : []))
  rungs.sort((a, b) => b.bitrate - a.bitrate)
  return (rungs.find(({ bitrate }) => bitrate < bandwidth) ?? rungs.at(-1))?.index ?? AUTO
}

const H264 = 'H.264'

/** The format of a variant's picture, as people call it. What isn't known counts as H.264. */
function format({ videoCodec }: Variant): string {
  switch (videoCodec.slice(0, 4)) {
    case 'av01':
      return 'AV1'
    case 'hvc1':
    case 'hev1':
      return 'HEVC'
    default:
      return H264
  }
}

/** Only the source is in another format than H.264. */
function name(variant: Variant): string {
  if (format(variant) !== H264) return `Source (${format(variant)})`
  if (variant.height > 0) return formatResolution(variant.width, variant.height, variant.frameRate)
  return variant.bitrate > 0 ? formatBitrate(variant.bitrate) : 'Video'
}
