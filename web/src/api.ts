/** The server's JSON, as `/api/v1` sends it, and the two calls that read it. */

export type ChannelState = 'live' | 'reconnecting' | 'offline'

/** What the streamer sends, in pixels and frames a second. */
export interface Video {
  width: number
  height: number
  frame_rate: number
}

export interface Channel {
  name: string
  /** True while a broadcast exists, also while it waits for its streamer. */
  live: boolean
  /** "reconnecting": the streamer lost the connection, the broadcast is held open. */
  state: ChannelState
  /** The broadcast's id. Another id is another broadcast. */
  broadcast: string | null
  /** RFC 3339. */
  started_at: string | null
  viewers: number
  video: Video | null
  /** Path of a JPEG that is renewed every 2 s or so. */
  thumbnail: string | null
}

/** The answer to a question about a channel. "failed": no usable answer came. */
export type ChannelAnswer =
  | { kind: 'channel'; channel: Channel }
  | { kind: 'missing' }
  | { kind: 'failed' }

export type ChannelsAnswer = { kind: 'channels'; channels: Channel[] } | { kind: 'failed' }

const TIMEOUT_MS = 8_000

/** Asks for one channel. It never throws: every fault is an answer. */
export async function fetchChannel(name: string, signal?: AbortSignal): Promise<ChannelAnswer> {
  try {
    const response = await get(`/api/v1/channels/${encodeURIComponent(name)}`, signal)
    if (response.ok) return { kind: 'channel', channel: (await response.json()) as Channel }
    // A proxy answers 404, too, while api is away: only api's own says something.
    const error = response.status === 404 ? ((await response.json()) as { code?: unknown }) : null
    return { kind: error?.code === 'channel_not_found' ? 'missing' : 'failed' }
  } catch {
    return { kind: 'failed' }
  }
}

/** Asks who is live. It never throws: every fault is an answer. */
export async function fetchLiveChannels(signal?: AbortSignal): Promise<ChannelsAnswer> {
  try {
    const response = await get('/api/v1/channels?live=true', signal)
    if (!response.ok) return { kind: 'failed' }
    const body = (await response.json()) as { channels: Channel[] | null }
    return { kind: 'channels', channels: body.channels ?? [] }
  } catch {
    return { kind: 'failed' }
  }
}

/** Where a channel's multivariant playlist is. */
export function playlistURL(name: string): string {
  return `/hls/${encodeURIComponent(name)}/index.m3u8`
}

async function get(url: string, signal?: AbortSignal): Promise<Response> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  return fetch(url, {
    headers: { accept: 'application/json' },
    cache: 'no-store',
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  })
}
