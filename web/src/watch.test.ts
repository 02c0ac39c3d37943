import { describe, expect, test } from 'vitest'
import type { Channel } from './api'
import {
  expectsMedia,
  initialWatchState,
  pollDelay,
  step,
  view,
  type Phase,
  type View,
  type WatchEvent,
  type WatchState,
} from './watch'

const live = (broadcast: string): WatchEvent => answer({ live: true, state: 'live', broadcast })
const reconnecting = (broadcast: string): WatchEvent =>
  answer({ live: true, state: 'reconnecting', broadcast })
const offline: WatchEvent = answer({ live: false, state: 'offline', broadcast: null })
const missing: WatchEvent = { type: 'answer', answer: { kind: 'missing' } }
const failed: WatchEvent = { type: 'answer', answer: { kind: 'failed' } }
const phase = (phase: Phase): WatchEvent => ({ type: 'phase', phase })

function answer(change: Partial<Channel>): WatchEvent {
  const channel: Channel = {
    name: 'demo',
    live: false,
    state: 'offline',
    broadcast: null,
    started_at: null,
    viewers: 0,
    video: null,
    thumbnail: null,
    ...change,
  }
  return { type: 'answer', answer: { kind: 'channel', channel } }
}

function run(...events: WatchEvent[]): WatchState {
  return events.reduce((state, event) => step(state, event, 0), initialWatchState())
}

interface Case {
  name: string
  events: WatchEvent[]
  view: View
  /** Which load is wanted; 0 is none. */
  load: number
}

const cases: Case[] = [
  { name: 'it loads before the first answer', events: [], view: 'starting', load: 1 },
  { name: 'an answer adopts that load', events: [live('a')], view: 'starting', load: 1 },
  { name: 'a picture may come before the answer', events: [phase('playing')], view: 'watching', load: 1 },
  { name: 'it watches', events: [live('a'), phase('playing'), live('a')], view: 'watching', load: 1 },
  { name: 'a stall is not a change of view', events: [live('a'), phase('playing'), phase('waiting')], view: 'watching', load: 1 },
  { name: 'an autoplay ban shows the player', events: [live('a'), phase('paused')], view: 'watching', load: 1 },

  { name: 'offline', events: [offline], view: 'offline', load: 0 },
  { name: 'offline goes live', events: [offline, live('a')], view: 'starting', load: 2 },
  { name: 'a late event of the unloaded player changes nothing', events: [offline, phase('waiting')], view: 'offline', load: 0 },

  { name: 'no such channel', events: [missing], view: 'missing', load: 0 },
  { name: 'a missing channel is made and goes live', events: [missing, offline, live('a')], view: 'starting', load: 2 },
  { name: 'a missing channel stays missing when the server is gone', events: [missing, failed], view: 'missing', load: 0 },

  { name: 'the server never answered', events: [failed], view: 'unreachable', load: 1 },
  { name: 'then it does', events: [failed, live('a'), phase('playing')], view: 'watching', load: 1 },
  { name: 'an unanswered question changes nothing', events: [live('a'), phase('playing'), failed], view: 'watching', load: 1 },
  { name: 'offline stays offline when the server is gone', events: [offline, failed], view: 'offline', load: 0 },

  { name: 'the streamer is gone, the buffer is not', events: [live('a'), phase('playing'), reconnecting('a')], view: 'watching', load: 1 },
  { name: 'the buffer runs dry', events: [live('a'), phase('playing'), reconnecting('a'), phase('waiting')], view: 'reconnecting', load: 1 },
  { name: 'the page is opened meanwhile', events: [reconnecting('a')], view: 'reconnecting', load: 1 },
  { name: 'the streamer is back', events: [live('a'), phase('playing'), reconnecting('a'), phase('waiting'), live('a')], view: 'watching', load: 1 },
  { name: 'a paused viewer is left alone', events: [live('a'), phase('playing'), reconnecting('a'), phase('paused')], view: 'watching', load: 1 },
  { name: 'the streamer never comes back', events: [live('a'), phase('playing'), reconnecting('a'), phase('waiting'), offline], view: 'ended', load: 0 },

  { name: 'it is watched to its end', events: [live('a'), phase('playing'), phase('ended'), offline], view: 'ended', load: 0 },
  { name: 'the server says it first', events: [live('a'), phase('playing'), offline], view: 'watching', load: 1 },
  { name: 'and the buffer is played out', events: [live('a'), phase('playing'), offline, phase('ended')], view: 'ended', load: 0 },
  { name: 'or just stops', events: [live('a'), phase('playing'), offline, phase('waiting')], view: 'ended', load: 0 },
  { name: 'a stale answer does not load the ended broadcast again', events: [live('a'), phase('playing'), phase('ended'), live('a')], view: 'ended', load: 0 },
  { name: 'the next broadcast starts by itself', events: [live('a'), phase('playing'), phase('ended'), offline, live('b')], view: 'starting', load: 2 },
  { name: 'even without a pause between them', events: [live('a'), phase('playing'), live('b')], view: 'starting', load: 2 },
  { name: 'the second one ends, too', events: [live('a'), phase('playing'), live('b'), phase('playing'), phase('ended'), offline], view: 'ended', load: 0 },
]

test.each(cases)('$name', ({ events, view: wanted, load }) => {
  const state = run(...events)
  expect(view(state)).toBe(wanted)
  expect(state.load).toBe(load)
})

test('a broadcast that had not ended is loaded again', () => {
  // api said offline for a moment, while the player was dry.
  let state = run(live('a'), phase('playing'), phase('waiting'), offline)
  state = step(state, live('a'), 9_999)
  expect([view(state), state.load]).toEqual(['ended', 0])
  state = step(state, live('a'), 10_000)
  expect([view(state), state.load]).toEqual(['starting', 2])
  for (const event of [phase('playing'), live('a')]) state = step(state, event, 11_000)
  expect([view(state), state.load]).toEqual(['watching', 2])
  // It ends, and api is late again.
  state = step(state, phase('ended'), 12_000)
  state = step(state, live('a'), 21_999)
  expect([view(state), state.load]).toEqual(['ended', 0])
})

test('media is expected while the streamer sends', () => {
  expect(expectsMedia(run(live('a')))).toBe(true)
  expect(expectsMedia(run(live('a'), phase('waiting'), reconnecting('a')))).toBe(false)
  expect(expectsMedia(run(offline))).toBe(false)
})

describe('polling', () => {
  test.each<[string, WatchEvent[], boolean, number]>([
    ['at first', [], false, 2_000],
    ['offline', [offline], false, 2_000],
    ['playing', [live('a'), phase('playing')], false, 5_000],
    ['stalled', [live('a'), phase('playing'), phase('waiting')], false, 2_000],
    ['reconnecting', [live('a'), phase('playing'), reconnecting('a')], false, 2_000],
    ['no such channel', [missing], false, 10_000],
    ['in a hidden tab', [offline], true, 15_000],
  ])('%s', (_name, events, hidden, wanted) => {
    expect(pollDelay(run(...events), hidden)).toBe(wanted)
  })
})
