import { describe, expect, test } from 'vitest'
import { initialRecovery, next, type Fault, type Recovery, type RecoveryAction, type RecoveryEvent, type Tick } from './recovery'

const now = 100_000
const start = initialRecovery()
const network: Fault = { kind: 'network', fatal: true, name: 'levelLoadError' }
const media: Fault = { kind: 'media', fatal: true, name: 'bufferAppendError' }
const other: Fault = { kind: 'other', fatal: true, name: 'internalException' }
const edge = { pathway: 'a', pathways: ['a', 'b'] }

function error(fault: Fault, failed: typeof edge | null = null): RecoveryEvent {
  return { type: 'error', fault, edge: failed }
}

function tick(change: Partial<Tick> = {}): Tick {
  return { type: 'tick', over: false, buffered: 1, latency: 2, target: 1.5, paused: false, ...change }
}

interface Case {
  name: string
  /** What differs from the state at the start. */
  from?: Partial<Recovery>
  event: RecoveryEvent
  /** What differs from `from` afterwards. */
  to?: Partial<Recovery>
  actions?: RecoveryAction[]
}

function check({ from, event, to, actions }: Case) {
  const state = { ...start, ...from }
  const [after, ...todo] = next(state, event, now)
  expect(after).toEqual({ ...state, ...to })
  expect(todo).toEqual(actions ?? [])
}

const used: Partial<Recovery> = {
  listed: true,
  expectsMedia: true,
  pictured: true,
  pending: 'load',
  retries: 3,
  mediaErrorAt: 1,
  failedAt: { a: 1 },
  leftEdgeAt: 1,
  leaving: network,
  waitingSince: 5,
  stuckSince: 5,
  nudged: true,
  pausedAt: 7,
  viewerIsLate: true,
  recoveries: 9,
  lastError: 'stuck',
}
const gone: Partial<Recovery> = {
  listed: false,
  pending: null,
  retries: 0,
  leaving: null,
  waitingSince: null,
  pausedAt: null,
  viewerIsLate: false,
}

describe('a load', () => {
  test.each<Case>([
    { name: 'given up leaves what was counted, and what edges did', from: used, event: { type: 'unload' }, to: gone },
    {
      name: 'begun has no picture and no error',
      from: used,
      event: { type: 'load' },
      to: { ...gone, pictured: false, lastError: null },
    },
    { name: 'has its playlist', from: { retries: 3 }, event: { type: 'listed' }, to: { listed: true, retries: 0 } },
    { name: 'has media', from: { retries: 3 }, event: { type: 'media' }, to: { retries: 0 } },
    { name: 'has nothing to wait for', event: { type: 'due' } },
  ])('$name', check)
})

describe('the network fails', () => {
  test.each<Case>([
    { name: 'and hls.js goes on by itself', event: error({ ...network, fatal: false }) },
    {
      name: 'it is tried again after a wait',
      from: { retries: 2 },
      event: error(network),
      to: { pending: 'load', lastError: 'levelLoadError' },
      actions: [{ do: 'wait', retries: 2 }],
    },
    {
      name: 'again, while it waits: the newest counts',
      from: { pending: 'rebuild', retries: 1 },
      event: error(network),
      to: { pending: 'load', lastError: 'levelLoadError' },
      actions: [{ do: 'wait', retries: 1 }],
    },
    {
      name: 'the wait is over: hls.js goes on',
      from: { listed: true, pending: 'load' },
      event: { type: 'due' },
      to: { pending: null, retries: 1, recoveries: 1 },
      actions: [{ do: 'start load' }],
    },
    {
      name: 'the wait is over, without a playlist: it is asked for elsewhere',
      from: { pending: 'load', retries: 3 },
      event: { type: 'due' },
      to: { pending: null, retries: 4, recoveries: 1 },
      actions: [{ do: 'load elsewhere' }],
    },
    {
      name: 'the wait is over for the fifth time: all anew',
      from: { listed: true, pending: 'load', retries: 4, mediaErrorAt: 1, waitingSince: 5 },
      event: { type: 'due' },
      to: { listed: false, pending: null, retries: 5, recoveries: 1, mediaErrorAt: -Infinity, stuckSince: now },
      actions: [{ do: 'rebuild elsewhere' }],
    },
  ])('$name', check)
})

describe('an edge fails', () => {
  const asked = { failedAt: { a: now }, leftEdgeAt: now, leaving: { ...network, fatal: false } }
  test.each<Case>([
    {
      name: 'another one is asked for, before hls.js gives up',
      event: error({ ...network, fatal: false }, edge),
      to: asked,
      actions: [{ do: 'prefer', pathways: ['b', 'a'] }],
    },
    {
      name: 'the one that failed the longest ago first',
      from: { failedAt: { b: 3, c: 2 } },
      event: error(network, { pathway: 'a', pathways: ['a', 'b', 'c', 'd'] }),
      to: { failedAt: { a: now, b: 3, c: 2 }, leftEdgeAt: now, leaving: network },
      actions: [{ do: 'prefer', pathways: ['d', 'c', 'b', 'a'] }],
    },
    {
      name: 'it is the only one',
      event: error({ ...network, fatal: false }, { pathway: 'a', pathways: ['a'] }),
      to: { failedAt: { a: now } },
    },
    {
      name: 'it is the only one, and hls.js gives up',
      event: error(network, { pathway: 'a', pathways: ['a'] }),
      to: { failedAt: { a: now }, pending: 'load', lastError: 'levelLoadError' },
      actions: [{ do: 'wait', retries: 0 }],
    },
    {
      name: 'one was left a moment ago',
      from: { leftEdgeAt: now - 1_999 },
      event: error({ ...network, fatal: false }, edge),
      to: { failedAt: { a: now } },
    },
    {
      name: 'one was left two seconds ago',
      from: { leftEdgeAt: now - 2_000 },
      event: error({ ...network, fatal: false }, edge),
      to: asked,
      actions: [{ do: 'prefer', pathways: ['b', 'a'] }],
    },
    { name: 'a decoder is no edge', event: error({ ...media, fatal: false }, edge) },
    {
      name: 'hls.js has moved',
      from: { leaving: { ...network, fatal: false } },
      event: { type: 'preferred', moved: true },
      to: { leaving: null },
    },
    {
      name: 'hls.js has moved, but had given up: it goes on at once',
      from: { listed: true, leaving: network },
      event: { type: 'preferred', moved: true },
      to: { leaving: null, lastError: 'levelLoadError', retries: 1, recoveries: 1 },
      actions: [{ do: 'start load' }],
    },
    {
      name: 'hls.js refuses: all anew elsewhere',
      from: { leaving: { ...network, fatal: false }, retries: 2 },
      event: { type: 'preferred', moved: false },
      to: { leaving: null, pending: 'rebuild elsewhere' },
      actions: [{ do: 'wait', retries: null }],
    },
    {
      name: 'the new start elsewhere',
      from: { listed: true, pending: 'rebuild elsewhere', mediaErrorAt: 1 },
      event: { type: 'due' },
      to: { listed: false, pending: null, retries: 1, recoveries: 1, mediaErrorAt: -Infinity, stuckSince: now },
      actions: [{ do: 'rebuild elsewhere' }],
    },
    { name: 'an answer that nobody waits for', event: { type: 'preferred', moved: false } },
  ])('$name', check)
})

describe('the decoder fails', () => {
  test.each<Case>([
    { name: 'and hls.js goes on by itself', event: error({ ...media, fatal: false }) },
    {
      name: 'hls.js may clear it once',
      event: error(media),
      to: { mediaErrorAt: now, recoveries: 1, lastError: 'bufferAppendError' },
      actions: [{ do: 'recover media' }],
    },
    {
      name: 'soon again: all anew',
      from: { mediaErrorAt: now - 10_000 },
      event: error(media),
      to: { pending: 'rebuild', lastError: 'bufferAppendError' },
      actions: [{ do: 'wait', retries: 0 }],
    },
    {
      name: 'much later: hls.js may again',
      from: { mediaErrorAt: now - 10_001 },
      event: error(media),
      to: { mediaErrorAt: now, recoveries: 1, lastError: 'bufferAppendError' },
      actions: [{ do: 'recover media' }],
    },
    {
      name: 'whatever else is fatal: all anew',
      event: error(other),
      to: { pending: 'rebuild', lastError: 'internalException' },
      actions: [{ do: 'wait', retries: 0 }],
    },
    {
      name: 'the new start stays at its edge',
      from: { listed: true, pending: 'rebuild', retries: 7, mediaErrorAt: 1 },
      event: { type: 'due' },
      to: { listed: false, pending: null, retries: 8, recoveries: 1, mediaErrorAt: -Infinity, stuckSince: now },
      actions: [{ do: 'rebuild' }],
    },
  ])('$name', check)
})

describe('the picture stops', () => {
  const stands: Partial<Recovery> = { pictured: true, waitingSince: now - 500 }
  const stuck: Partial<Recovery> = { ...stands, expectsMedia: true, waitingSince: now - 30_000, stuckSince: now - 12_001 }
  test.each<Case>([
    {
      name: 'from now on',
      from: { nudged: true },
      event: { type: 'waiting' },
      to: { waitingSince: now, stuckSince: now, nudged: false },
    },
    { name: 'and has stood for a while', from: { ...stands, nudged: true }, event: { type: 'waiting' } },
    { name: 'and moves', from: { waitingSince: 5 }, event: { type: 'playing' }, to: { pictured: true, waitingSince: null } },
    { name: 'at the end', from: stands, event: { type: 'ended' }, to: { waitingSince: null } },
    {
      name: 'enough has come: it goes on',
      from: stands,
      event: { type: 'progress', buffered: 0.9, held: false },
      to: { nudged: true },
      actions: [{ do: 'nudge' }],
    },
    { name: 'not enough has come', from: stands, event: { type: 'progress', buffered: 0.89, held: false } },
    { name: 'it was told to go on', from: { ...stands, nudged: true }, event: { type: 'progress', buffered: 3, held: false } },
    { name: 'it is paused, or seeks', from: stands, event: { type: 'progress', buffered: 3, held: true } },
    { name: 'before there was one', from: { waitingSince: 5 }, event: { type: 'progress', buffered: 3, held: false } },
    { name: 'it moves, and more comes', from: { pictured: true }, event: { type: 'progress', buffered: 3, held: false } },

    {
      name: 'a hair before the end',
      from: { ...stands, waitingSince: now - 1_501 },
      event: tick({ over: true, buffered: 0.29 }),
      actions: [{ do: 'end' }],
    },
    { name: 'too short to be the end', from: { ...stands, waitingSince: now - 1_500 }, event: tick({ over: true, buffered: 0 }) },
    { name: 'with something left to play', from: { ...stands, waitingSince: 5 }, event: tick({ over: true, buffered: 0.3 }) },
    { name: 'while the playlist goes on', from: { ...stands, waitingSince: 5 }, event: tick({ buffered: 0 }) },

    {
      name: 'for so long that it is stuck',
      from: { ...stuck, listed: true, mediaErrorAt: 1 },
      event: tick(),
      to: { listed: false, retries: 1, recoveries: 1, lastError: 'stuck', mediaErrorAt: -Infinity, stuckSince: now },
      actions: [{ do: 'rebuild elsewhere' }],
    },
    { name: 'not quite long enough', from: { ...stuck, stuckSince: now - 12_000 }, event: tick() },
    { name: 'for long, but an attempt is to come', from: { ...stuck, pending: 'load' }, event: tick() },
    { name: 'for long, but the streamer is away', from: { ...stuck, expectsMedia: false }, event: tick() },
    {
      name: 'the streamer is back: the watchdog begins anew',
      from: { ...stuck, expectsMedia: false },
      event: { type: 'expect', expected: true },
      to: { expectsMedia: true, stuckSince: now },
    },
    {
      name: 'the streamer is back: what waits is tried at once',
      from: { listed: true, pending: 'load' },
      event: { type: 'expect', expected: true },
      to: { expectsMedia: true, stuckSince: now, pending: null, retries: 1, recoveries: 1 },
      actions: [{ do: 'start load' }],
    },
    { name: 'the streamer is still there', from: { ...stuck, pending: 'load' }, event: { type: 'expect', expected: true } },
    { name: 'the streamer goes', from: { ...stuck, pending: 'load' }, event: { type: 'expect', expected: false }, to: { expectsMedia: false } },
  ])('$name', check)
})

describe('the picture is late', () => {
  const late = tick({ latency: 9.6 })
  const jump: RecoveryAction[] = [{ do: 'jump to live' }]
  test.each<Case>([
    { name: 'by itself: it jumps ahead', from: { expectsMedia: true }, event: late, actions: jump },
    { name: 'by just so much that it catches up', from: { expectsMedia: true }, event: tick({ latency: 9.5 }) },
    { name: 'by the viewer’s will', from: { expectsMedia: true, viewerIsLate: true }, event: late },
    { name: 'and the streamer is away', event: late },
    { name: 'and paused', from: { expectsMedia: true }, event: { ...late, paused: true } },
    { name: 'as far as it isn’t known', from: { expectsMedia: true }, event: tick({ latency: null }) },
    { name: 'and nobody knows how late it may be', from: { expectsMedia: true }, event: tick({ latency: 60, target: null }) },
    { name: 'no more: the viewer is back at the live edge', from: { viewerIsLate: true }, event: tick({ latency: 3.4 }), to: { viewerIsLate: false } },
    { name: 'still', from: { viewerIsLate: true }, event: tick({ latency: 3.5 }) },
    { name: 'since the viewer went back', event: { type: 'sought' }, to: { viewerIsLate: true } },
    {
      name: 'since the viewer paused',
      from: { waitingSince: 5 },
      event: { type: 'paused' },
      to: { pausedAt: now, viewerIsLate: true, waitingSince: null },
    },
    {
      name: 'after a short pause: it goes on where it was',
      from: { pausedAt: now - 10_000, viewerIsLate: true },
      event: { type: 'resumed' },
      to: { pausedAt: null },
    },
    {
      name: 'after a long pause: it goes on at the live edge',
      from: { pausedAt: now - 10_001, viewerIsLate: true },
      event: { type: 'resumed' },
      to: { pausedAt: null, viewerIsLate: false },
      actions: jump,
    },
    { name: 'not at all, where playing begins', event: { type: 'resumed' } },
    {
      name: 'until the viewer wants the live edge',
      from: { pausedAt: 5, viewerIsLate: true },
      event: { type: 'jump' },
      to: { pausedAt: null, viewerIsLate: false },
      actions: jump,
    },
  ])('$name', check)
})
