import Hls, { Events, type HlsConfig, type Level, type Loader, type LoaderContext } from 'hls.js'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { hlsConfig } from './player-config'

/** As the edge writes it: H.264 first, the source last. */
function playlist(source: string, bandwidth: number, frameRate: number) {
  return `#EXTM3U
#EXT-X-VERSION:9
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="audio",AUTOSELECT=YES,DEFAULT=YES,CHANNELS="2",URI="b1/audio/index.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=3753600,SCORE=2,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=${frameRate}.000,AUDIO="audio"
b1/720p/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1113600,SCORE=1,CODECS="avc1.4d401e,mp4a.40.2",RESOLUTION=640x360,FRAME-RATE=30.000,AUDIO="audio"
b1/360p30/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=${bandwidth},SCORE=3,CODECS="${source},mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=${frameRate}.000,AUDIO="audio"
b1/source/index.m3u8
`
}

const av1 = 'av01.0.05M.08'
const hevc = 'hvc1.1.6.L93.B0'
let hls: Hls | undefined

beforeEach(() => {
  // Chromium's answers.
  const isTypeSupported = (type: string) => /codecs="?(avc1|av01|mp4a)\./.test(type)
  vi.stubGlobal('self', globalThis)
  vi.stubGlobal('MediaSource', { isTypeSupported })
  vi.stubGlobal('navigator', {})
  vi.stubGlobal('location', new URL('https://a.example/demo'))
})

afterEach(() => {
  hls?.destroy()
  vi.unstubAllGlobals()
})

/** The real hls.js with our settings, which has read a multivariant playlist. */
async function load(text: string): Promise<Hls> {
  class Answer implements Loader<LoaderContext> {
    context = null
    stats = { loading: {}, parsing: {}, buffering: {} } as Loader<LoaderContext>['stats']
    load: Loader<LoaderContext>['load'] = (context, _config, callbacks) => {
      if (new URL(context.url).pathname !== '/hls/demo/index.m3u8') return
      queueMicrotask(() => callbacks.onSuccess({ url: context.url, data: text }, this.stats, context, null))
    }
    abort() {}
    destroy() {}
  }
  const player = new Hls({ ...hlsConfig('demo', 'session'), autoStartLoad: false, loader: Answer as HlsConfig['loader'] })
  hls = player
  const parsed = new Promise((resolve) => player.once(Events.MANIFEST_PARSED, resolve))
  player.loadSource('https://a.example/hls/demo/index.m3u8')
  await parsed
  return player
}

const codecs = (levels: readonly Level[]) => levels.map(({ videoCodec, height }) => `${videoCodec} ${height}`)

test('what the browser can play of the source’s formats is listed', async () => {
  const { levels } = await load(playlist(av1, 2_000_000, 30))
  expect(codecs(levels)).toEqual(['avc1.4d401e 360', 'avc1.64001f 720', `${av1} 720`])
})

test('what it can’t play is left out', async () => {
  const { levels } = await load(playlist(hevc, 2_000_000, 30))
  expect(codecs(levels)).toEqual(['avc1.4d401e 360', 'avc1.64001f 720'])
})

test.each([
  ['a source that needs less', av1, 2_000_000, 30, 6_000_000, 'avc1.64001f 720'],
  ['a source that needs more', av1, 6_000_000, 30, 9_000_000, 'avc1.64001f 720'],
  // hls.js begins with at most 30 frames a second, and goes up from there.
  ['60 frames a second', av1, 2_000_000, 60, 6_000_000, 'avc1.4d401e 360'],
  ['a slow network', av1, 2_000_000, 30, 1_500_000, 'avc1.4d401e 360'],
  ['a source that can’t be played', hevc, 2_000_000, 30, 6_000_000, 'avc1.64001f 720'],
  ['a source in H.264', 'avc1.64001f', 4_000_000, 30, 6_000_000, 'avc1.64001f 720'],
])('Auto begins with H.264, by the network: %s', async (_name, source, bandwidth, frameRate, network, want) => {
  const player = await load(playlist(source, bandwidth, frameRate))
  player.bandwidthEstimate = network
  expect(codecs(player.levels)[player.firstAutoLevel]).toBe(want)
})

test('Auto plays a source in another format where there is nothing else', async () => {
  const only = playlist(av1, 2_000_000, 30).replace(/#EXT-X-STREAM-INF:.*avc1.*\n.*\n/g, '')
  const player = await load(only)
  expect(codecs(player.levels)[player.firstAutoLevel]).toBe(`${av1} 720`)
})
