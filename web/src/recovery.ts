/**
 * How the player gets over what goes wrong: what hls.js and the video element
 * report goes in, what to do comes out. Pure.
 *
 * - The network fails: the same load is tried again after a wait that grows, and
 *   everything is loaded anew at the next edge when that doesn't help.
 * - An edge can't be reached or fails: the other one is asked for at once. hls.js
 *   by itself would try all its variants at the edge that is gone first.
 * - The decoder fails: once hls.js may clear it, then everything is loaded anew.
 * - The picture stops: it goes on as soon as there is enough, without the browser's
 *   wait for more; where media flows on the server and none plays, everything is
 *   loaded anew at the next edge.
 * - The picture is far behind, and the viewer didn't ask for that: jump ahead.
 */

/** A viewer who paused for longer than this resumes at the live edge. */
const RESUME_LIVE_AFTER_MS = 10_000
/** Further behind its target than this, without the viewer's will, it jumps ahead. */
const MAX_DRIFT_SECONDS = 8
/** This close behind the target counts as "at the live edge". */
export const LIVE_EDGE_SLACK_SECONDS = 2
/** Media flows on the server and none plays: after this long, start over. */
const STUCK_MS = 12_000
/**
 * Enough to go on with after the picture has stopped. Chromium asks for more each
 * time that sound has run dry, up to 3 s; a seek makes it forget that.
 */
const ENOUGH_SECONDS = 0.9
/** A playlist that has ended, and less than this to play for longer than END_MS: the end. */
const END_SECONDS = 0.3
const END_MS = 1_500
/** Retries of the same load before everything is loaded anew. */
const RETRIES_BEFORE_REBUILD = 4
/** A second media error within this time needs more than hls.js's own recovery. */
const MEDIA_ERROR_WINDOW_MS = 10_000
/** After leaving an edge that doesn't answer, no other is left for this long. */
const LEAVE_EDGE_EVERY_MS = 2_000

/** What is tried when a wait is over. */
export type Attempt = 'load' | 'rebuild' | 'rebuild elsewhere'

/** Times are in milliseconds since any moment; -Infinity is never. */
export interface Recovery {
  /** Whether the multivariant playlist is there. */
  readonly listed: boolean
  /** Whether the server has media for us now. */
  readonly expectsMedia: boolean
  /** Whether this load has shown a picture. */
  readonly pictured: boolean
  /** What the wait that is running is for; null: there is none. */
  readonly pending: Attempt | null
  /** Attempts since media last came. */
  readonly retries: number
  readonly mediaErrorAt: number
  /** When each edge last failed, by its pathway (RFC 8216bis, 7). */
  readonly failedAt: Readonly<Record<string, number>>
  readonly leftEdgeAt: number
  /** The error for which another edge has just been asked for. */
  readonly leaving: Fault | null
  /** Since when the picture has stood for lack of media; null: it doesn't. */
  readonly waitingSince: number | null
  /** When the watchdog began to count: no earlier than media was to be had. */
  readonly stuckSince: number
  /** Whether a seek in place has tried to end this wait. */
  readonly nudged: boolean
  readonly pausedAt: number | null
  /** The viewer went back or paused: being late is what they want. */
  readonly viewerIsLate: boolean
  /** Faults that something was done about, since the page was opened. */
  readonly recoveries: number
  /** The newest fatal error's name, of this load. */
  readonly lastError: string | null
}

export interface Fault {
  readonly kind: 'network' | 'media' | 'other'
  /** hls.js won't go on by itself. */
  readonly fatal: boolean
  readonly name: string
}

/** The edge in use, where it is the one that failed. */
export interface FailedEdge {
  readonly pathway: string
  /** All that there are, best first. */
  readonly pathways: readonly string[]
}

export type RecoveryEvent =
  | { type: 'unload' }
  | { type: 'load' }
  | { type: 'expect'; expected: boolean }
  /** The multivariant playlist is there. */
  | { type: 'listed' }
  /** Media has come. */
  | { type: 'media' }
  | { type: 'error'; fault: Fault; edge: FailedEdge | null }
  /** What came of the action "prefer". */
  | { type: 'preferred'; moved: boolean }
  /** The wait is over. */
  | { type: 'due' }
  /** The picture moves. */
  | { type: 'playing' }
  /** It stands for lack of media. */
  | { type: 'waiting' }
  /** More is buffered, in seconds; held: the picture stands because it is paused or seeks. */
  | { type: 'progress'; buffered: number; held: boolean }
  | { type: 'paused' }
  | { type: 'resumed' }
  /** The viewer went back. */
  | { type: 'sought' }
  /** The viewer wants the live edge. */
  | { type: 'jump' }
  | { type: 'ended' }
  | Tick

/** A look once a second, for what no event tells. Times are in seconds. */
export interface Tick {
  readonly type: 'tick'
  /** The playlist has its end. */
  readonly over: boolean
  readonly buffered: number
  /** How far behind the live edge the picture is, and should be; null while unknown. */
  readonly latency: number | null
  readonly target: number | null
  readonly paused: boolean
}

export type RecoveryAction =
  /** Wait: "due" is expected after a wait that grows with the attempts so far, null: at once. */
  | { do: 'wait'; retries: number | null }
  /** Let hls.js load where it stopped. */
  | { do: 'start load' }
  /** Load the multivariant playlist from the next edge. */
  | { do: 'load elsewhere' }
  /** Begin with a new hls.js, here or at the next edge. */
  | { do: 'rebuild' }
  | { do: 'rebuild elsewhere' }
  /** Ask hls.js for another edge, best first; "preferred" says what came of it. */
  | { do: 'prefer'; pathways: readonly string[] }
  /** Let hls.js clear the decoder. */
  | { do: 'recover media' }
  /** Seek to where the playhead is. */
  | { do: 'nudge' }
  | { do: 'jump to live' }
  /** Say that it was watched to its end. */
  | { do: 'end' }

/** The state that follows, and what to do, in this order. */
export type Next = readonly [Recovery, ...RecoveryAction[]]

export function initialRecovery(): Recovery {
  return {
    listed: false,
    expectsMedia: false,
    pictured: false,
    pending: null,
    retries: 0,
    mediaErrorAt: -Infinity,
    failedAt: {},
    leftEdgeAt: -Infinity,
    leaving: null,
    waitingSince: null,
    stuckSince: 0,
    nudged: false,
    pausedAt: null,
    viewerIsLate: false,
    recoveries: 0,
    lastError: null,
  }
}

export function next(state: Recovery, event: RecoveryEvent, now: number): Next {
  switch (event.type) {
    case 'unload':
      return [{ ...state, ...stopped, retries: 0 }]
    case 'load':
      return [{ ...state, ...stopped, retries: 0, pictured: false, lastError: null }]
    case 'expect':
      return onExpect(state, event.expected, now)
    case 'listed':
      return [{ ...state, listed: true, retries: 0 }]
    case 'media':
      return [{ ...state, retries: 0 }]
    case 'error':
      return onError(state, event.fault, event.edge, now)
    case 'preferred':
      return onPreferred(state, event.moved, now)
    case 'due':
      return state.pending === null ? [state] : attempt(state, state.pending, now)
    case 'playing':
      return [{ ...state, pictured: true, waitingSince: null }]
    case 'waiting':
      return state.waitingSince === null
        ? [{ ...state, waitingSince: now, stuckSince: now, nudged: false }]
        : [state]
    case 'progress':
      return onProgress(state, event.buffered, event.held)
    case 'paused':
      return [{ ...state, pausedAt: now, viewerIsLate: true, waitingSince: null }]
    case 'resumed': {
      const long = state.pausedAt !== null && now - state.pausedAt > RESUME_LIVE_AFTER_MS
      return long ? jump(state) : [{ ...state, pausedAt: null }]
    }
    case 'sought':
      return [{ ...state, viewerIsLate: true }]
    case 'jump':
      return jump(state)
    case 'ended':
      return [{ ...state, waitingSince: null }]
    case 'tick':
      return onTick(state, event, now)
  }
}

/** What is left of a load when it is given up. */
const stopped = { listed: false, pending: null, leaving: null, waitingSince: null, pausedAt: null, viewerIsLate: false }

/** Media that is to be had again is asked for at once. */
function onExpect(state: Recovery, expected: boolean, now: number): Next {
  const risen = expected && !state.expectsMedia
  const after = { ...state, expectsMedia: expected, stuckSince: risen ? now : state.stuckSince }
  return risen && after.pending !== null ? attempt(after, after.pending, now) : [after]
}

function onError(state: Recovery, fault: Fault, edge: FailedEdge | null, now: number): Next {
  if (fault.kind !== 'network' || edge === null) return onFault(state, fault, now)
  const after = { ...state, failedAt: { ...state.failedAt, [edge.pathway]: now } }
  if (edge.pathways.length < 2 || now - state.leftEdgeAt < LEAVE_EDGE_EVERY_MS) {
    return onFault(after, fault, now)
  }
  // The edge whose failure is the longest ago first.
  const failed = (pathway: string) => after.failedAt[pathway] ?? 0
  const pathways = [...edge.pathways].sort((a, b) => failed(a) - failed(b))
  return [{ ...after, leftEdgeAt: now, leaving: fault }, { do: 'prefer', pathways }]
}

/** hls.js refuses to go back to an edge that failed minutes ago: then only a new start helps. */
function onPreferred(state: Recovery, moved: boolean, now: number): Next {
  const fault = state.leaving
  if (fault === null) return [state]
  const after = { ...state, leaving: null }
  if (!moved) return wait(after, 'rebuild elsewhere', null)
  return fault.fatal ? attempt({ ...after, lastError: fault.name }, 'load', now) : [after]
}

function onFault(state: Recovery, fault: Fault, now: number): Next {
  if (!fault.fatal) return [state]
  const after = { ...state, lastError: fault.name }
  if (fault.kind === 'network') return wait(after, 'load', after.retries)
  if (fault.kind === 'media' && now - state.mediaErrorAt > MEDIA_ERROR_WINDOW_MS) {
    return [{ ...after, mediaErrorAt: now, recoveries: state.recoveries + 1 }, { do: 'recover media' }]
  }
  return wait(after, 'rebuild', after.retries)
}

function wait(state: Recovery, pending: Attempt, retries: number | null): Next {
  return [{ ...state, pending }, { do: 'wait', retries }]
}

function attempt(state: Recovery, what: Attempt, now: number): Next {
  const retries = state.retries + 1
  const after = { ...state, pending: null, retries, recoveries: state.recoveries + 1 }
  if (what === 'load' && retries <= RETRIES_BEFORE_REBUILD) {
    return [after, { do: state.listed ? 'start load' : 'load elsewhere' }]
  }
  return [
    { ...after, listed: false, mediaErrorAt: -Infinity, stuckSince: now },
    { do: what === 'rebuild' ? 'rebuild' : 'rebuild elsewhere' },
  ]
}

/** Plays what has come after a stop, where the browser waits for more. */
function onProgress(state: Recovery, buffered: number, held: boolean): Next {
  const waits = state.waitingSince !== null && state.pictured
  if (!waits || state.nudged || held || buffered < ENOUGH_SECONDS) return [state]
  return [{ ...state, nudged: true }, { do: 'nudge' }]
}

function onTick(state: Recovery, tick: Tick, now: number): Next {
  const waited = state.waitingSince === null ? 0 : now - state.waitingSince
  // The playlist has ended, and the playhead stopped a hair before the end.
  if (tick.over && waited > END_MS && tick.buffered < END_SECONDS) {
    return [state, { do: 'end' }]
  }
  const stuck = waited > 0 && now - state.stuckSince > STUCK_MS
  if (state.expectsMedia && stuck && state.pending === null) {
    return attempt({ ...state, lastError: 'stuck' }, 'rebuild elsewhere', now)
  }
  if (tick.latency === null || tick.target === null || tick.paused) return [state]
  const drift = tick.latency - tick.target
  const after = drift < LIVE_EDGE_SLACK_SECONDS ? { ...state, viewerIsLate: false } : state
  return state.expectsMedia && !after.viewerIsLate && drift > MAX_DRIFT_SECONDS ? jump(after) : [after]
}

function jump(state: Recovery): Next {
  return [{ ...state, viewerIsLate: false, pausedAt: null }, { do: 'jump to live' }]
}
