import type { ErrorData } from 'hls.js'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Player } from './player'

/** hls.js as far as the player uses it, with two edges. */
const fake = vi.hoisted(() => {
  class FakeHls {
    static readonly DefaultConfig = { playlistLoadPolicy: { default: {} }, fragLoadPolicy: { default: {} } }
    static readonly made: FakeHls[] = []
    static isSupported = () => true

    readonly loaded: string[] = []
    readonly handlers = new Map<string, (event: string, data: unknown) => void>()
    levels: { pathwayId: string; url: string[] }[] = []
    loadLevel = 0
    latency = 0
    targetLatency = null
    bandwidthEstimate = 0
    penalised: string[] = []
    #priority = ['a', 'b']

    constructor(readonly config: { manifestLoadPolicy: { default: object } }) {
      FakeHls.made.push(this)
    }

    on(event: string, handler: (event: string, data: unknown) => void) {
      this.handlers.set(event, handler)
    }

    emit(event: string, data: unknown = {}) {
      this.handlers.get(event)?.(event, data)
    }

    loadSource(url: string) {
      this.loaded.push(url)
    }

    get pathwayPriority() {
      return this.#priority
    }

    set pathwayPriority(ids: string[]) {
      this.#priority = ids
      const id = ids.find((id) => !this.penalised.includes(id))
      if (id) this.play(id)
    }

    /** The playlist is there, and media comes from the edge. */
    play(id: string) {
      const urls = ['a', 'b'].map((id) => `https://${id}.example/hls/demo/b1/source/index.m3u8`)
      this.emit('hlsManifestLoaded', { levels: urls.map((url) => ({ url })) })
      this.levels = [{ pathwayId: id, url: [urls[id === 'a' ? 0 : 1] ?? ''] }]
      this.emit('hlsManifestParsed')
      this.emit('hlsFragBuffered')
    }

    attachMedia() {}
    startLoad() {}
    destroy() {}
  }
  return FakeHls
})

vi.mock('hls.js', async (original) => ({ ...(await original<object>()), default: fake }))

class FakeVideo extends EventTarget {
  paused = false
  muted = false
  ended = false
  seeking = false
  currentTime = 0
  buffered = { length: 0 }
  play = () => Promise.resolve()
}

const a = 'https://a.example/hls/demo/index.m3u8'
const b = 'https://b.example/hls/demo/index.m3u8'
let video: FakeVideo
let player: Player

beforeEach(() => {
  vi.useFakeTimers()
  vi.stubGlobal('window', Object.assign(new EventTarget(), { location: { href: 'https://a.example/demo' } }))
  fake.made.length = 0
  video = new FakeVideo()
  player = new Player({ video: video as unknown as HTMLVideoElement, channel: 'demo', onChange: () => undefined })
  player.load('/hls/demo/index.m3u8')
})

afterEach(() => {
  player.destroy()
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

function newest() {
  const hls = fake.made.at(-1)
  if (!hls) throw new Error('no player was made')
  return hls
}

/** All addresses that the playlist was asked for at. */
const asked = () => fake.made.flatMap((hls) => hls.loaded)

function fail(url: string, fatal: boolean) {
  const error = { type: 'networkError', details: 'levelLoadError', fatal, url } as unknown as ErrorData
  newest().emit('hlsError', error)
}

test('after an error at the only edge that lives it comes back there', () => {
  expect(asked()).toEqual([a])
  newest().play('a')
  // The page's own edge dies, hls.js goes to the other one, and won't go back.
  newest().penalised = ['a']
  fail(newest().levels[0]?.url[0] ?? '', false)
  expect(newest().levels[0]?.pathwayId).toBe('b')
  vi.advanceTimersByTime(60_000)
  fail(newest().levels[0]?.url[0] ?? '', false)
  vi.advanceTimersByTime(1)
  expect(asked()).toEqual([a, a])
  fail(a, true)
  vi.advanceTimersByTime(5_000)
  expect(asked()).toEqual([a, a, b])
  newest().play('b')
  expect(newest().levels[0]?.pathwayId).toBe('b')
})

test('being stuck leads to the other edge', () => {
  newest().play('a')
  player.expectMedia(true)
  video.dispatchEvent(new Event('waiting'))
  vi.advanceTimersByTime(13_000)
  expect(asked()).toEqual([a, b])
  vi.advanceTimersByTime(13_000)
  expect(asked()).toEqual([a, b, a])
})

test('a playlist that never comes is given up before the player counts as stuck', () => {
  const policy = newest().config.manifestLoadPolicy.default
  expect(policy).toEqual({ maxTimeToFirstByteMs: 7_000, maxLoadTimeMs: 7_000, timeoutRetry: null, errorRetry: null })
})
