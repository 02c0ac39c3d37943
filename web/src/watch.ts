/**
 * The watch page's state machine: what the server says about the channel and
 * what the player does go in, what to play and what to show come out. Pure.
 */

import type { Channel, ChannelAnswer } from './api'

/** What the player is doing. "waiting": it has run out of media. */
export type Phase = 'idle' | 'loading' | 'playing' | 'paused' | 'waiting' | 'ended'

/**
 * A broadcast that was watched to its end and is live all the same this much
 * later, in milliseconds, is loaded again: then it had not ended.
 */
const STILL_LIVE_MS = 10_000

export type View =
  | 'starting' // nothing to see yet, but it will come
  | 'watching'
  | 'reconnecting' // the streamer is gone, the buffer is dry, the broadcast is held open
  | 'ended' // it was watched to its end
  | 'offline'
  | 'missing' // there is no such channel
  | 'unreachable' // the server hasn't answered once

export interface WatchState {
  /** The newest answer about the channel. */
  readonly channel: Channel | null
  readonly answer: 'none' | 'channel' | 'missing' | 'failed'
  /** Counts loads: the player loads anew when it changes, and unloads at 0. */
  readonly load: number
  /** The number of loads so far. */
  readonly loads: number
  /** The broadcast being played; null until an answer names it. */
  readonly broadcast: string | null
  /** The broadcast that was played to its end, and when that was. */
  readonly finished: string | null
  readonly finishedAt: number
  readonly phase: Phase
  /** Whether this load has shown a picture. */
  readonly pictured: boolean
}

export type WatchEvent =
  | { type: 'answer'; answer: ChannelAnswer }
  | { type: 'phase'; phase: Phase }

/**
 * The page starts by loading the playlist, before it knows whether the channel
 * is live: when it is, that saves a round trip.
 */
export function initialWatchState(): WatchState {
  return {
    channel: null,
    answer: 'none',
    load: 1,
    loads: 1,
    broadcast: null,
    finished: null,
    finishedAt: 0,
    phase: 'loading',
    pictured: false,
  }
}

/** What follows from an event. Now is in milliseconds, since any moment. */
export function step(state: WatchState, event: WatchEvent, now: number): WatchState {
  return event.type === 'phase' ? onPhase(state, event.phase, now) : onAnswer(state, event.answer, now)
}

function onAnswer(state: WatchState, answer: ChannelAnswer, now: number): WatchState {
  switch (answer.kind) {
    case 'failed':
      // An unanswered question says nothing about the media: play on.
      return state.channel || state.answer === 'missing' ? state : { ...state, answer: 'failed' }
    case 'missing':
      return stop({ ...state, channel: null, answer: 'missing' })
    case 'channel':
      return onChannel({ ...state, channel: answer.channel, answer: 'channel' }, answer.channel, now)
  }
}

function onChannel(state: WatchState, channel: Channel, now: number): WatchState {
  if (!channel.live) {
    if (state.load === 0) return state
    // What is buffered is played out; without a known broadcast there was none.
    return state.broadcast === null || isDry(state.phase) ? finish(state, now) : state
  }
  if (channel.broadcast === state.finished && channel.broadcast !== null) {
    // The player saw the end before the server said so.
    if (state.load !== 0 || now - state.finishedAt < STILL_LIVE_MS) return state
    state = { ...state, finished: null }
  }
  if (state.load !== 0) {
    if (state.broadcast === channel.broadcast) return state
    if (state.broadcast === null) return { ...state, broadcast: channel.broadcast }
  }
  const load = state.loads + 1
  return {
    ...state,
    load,
    loads: load,
    broadcast: channel.broadcast,
    phase: 'loading',
    pictured: false,
  }
}

function onPhase(state: WatchState, phase: Phase, now: number): WatchState {
  if (state.load === 0 || phase === 'idle') return state
  const next = { ...state, phase, pictured: state.pictured || phase === 'playing' }
  if (phase === 'ended') return finish(next, now)
  if (isDry(phase) && state.channel && !state.channel.live && state.broadcast !== null) {
    return finish(next, now)
  }
  return next
}

function finish(state: WatchState, now: number): WatchState {
  return stop({ ...state, finished: state.broadcast ?? state.finished, finishedAt: now })
}

function stop(state: WatchState): WatchState {
  return { ...state, load: 0, broadcast: null, phase: 'idle', pictured: false }
}

function isDry(phase: Phase): boolean {
  return phase === 'waiting' || phase === 'loading'
}

export function view(state: WatchState): View {
  if (state.answer === 'missing') return 'missing'
  if (state.load !== 0) {
    if (state.channel?.state === 'reconnecting' && isDry(state.phase)) return 'reconnecting'
    if (state.pictured || state.phase === 'paused') return 'watching'
    return state.answer === 'failed' ? 'unreachable' : 'starting'
  }
  if (state.answer === 'failed') return 'unreachable'
  return state.finished !== null ? 'ended' : 'offline'
}

/** Whether the player should be getting media now. */
export function expectsMedia(state: WatchState): boolean {
  return state.load !== 0 && state.channel?.state === 'live'
}

/** How long to wait before the next question about the channel, before jitter. */
export function pollDelay(state: WatchState, hidden: boolean): number {
  if (hidden) return 15_000
  if (state.answer === 'missing') return 10_000
  const steady = state.channel?.state === 'live' && state.pictured && !isDry(state.phase)
  return steady ? 5_000 : 2_000
}
