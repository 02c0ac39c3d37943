/** What an error of hls.js means for the player. Pure. */

import { ErrorTypes, type ErrorData } from 'hls.js'
import type { FailedEdge, Fault } from './recovery'

/** What is looked at of hls.js. */
interface Edges {
  readonly pathwayPriority: string[] | null
  readonly levels: readonly { pathwayId: string; url: readonly string[] }[]
  readonly loadLevel: number
}

export function faultOf(data: ErrorData): Fault {
  return { kind: kindOf(data), fatal: data.fatal, name: data.details }
}

function kindOf(data: ErrorData): Fault['kind'] {
  switch (data.type) {
    case ErrorTypes.NETWORK_ERROR:
      return 'network'
    case ErrorTypes.MEDIA_ERROR:
      return 'media'
    default:
      return 'other'
  }
}

/**
 * The edge in use, when it is what failed: it can't be reached, or answers that it
 * can't serve. Base is what addresses are relative to.
 */
export function failedEdge(hls: Edges, data: ErrorData, base: string): FailedEdge | null {
  const level = hls.levels[hls.loadLevel]
  const status = data.response?.code ?? 0
  const asked = data.context?.url ?? data.frag?.url ?? data.url
  const answered = status > 0 && status < 500
  if (!hls.pathwayPriority || !level || !asked || answered || !sameHost(asked, level.url[0] ?? '', base)) return null
  return { pathway: level.pathwayId, pathways: hls.pathwayPriority }
}

function sameHost(a: string, b: string, base: string): boolean {
  try {
    return new URL(a, base).host === new URL(b, base).host
  } catch {
    return false
  }
}
