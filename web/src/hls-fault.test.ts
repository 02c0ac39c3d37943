import { ErrorTypes, type ErrorData } from 'hls.js'
import { describe, expect, test } from 'vitest'
import { failedEdge, faultOf } from './hls-fault'

const page = 'https://a.example/demo'
const hls = {
  pathwayPriority: ['a', 'b'] as string[] | null,
  levels: [{ pathwayId: 'a', url: ['/hls/demo/b1/source/index.m3u8'] }],
  loadLevel: 0,
}
const here = { pathway: 'a', pathways: ['a', 'b'] }

function error(change: object): ErrorData {
  return { type: ErrorTypes.NETWORK_ERROR, details: 'fragLoadError', fatal: false, ...change } as unknown as ErrorData
}

test.each([
  [ErrorTypes.NETWORK_ERROR, 'network'],
  [ErrorTypes.MEDIA_ERROR, 'media'],
  [ErrorTypes.MUX_ERROR, 'other'],
])('%s', (type, kind) => {
  expect(faultOf(error({ type, fatal: true }))).toEqual({ kind, fatal: true, name: 'fragLoadError' })
})

describe('the edge failed', () => {
  const url = 'https://a.example/hls/demo/b1/source/7.1.p.m4s'
  test.each<[string, object, typeof here | null]>([
    ['it can’t be reached', { url }, here],
    ['a playlist', { context: { url: '/hls/demo/b1/source/index.m3u8' } }, here],
    ['a segment', { frag: { url } }, here],
    ['it fails', { url, response: { code: 503 } }, here],
    ['it doesn’t have that', { url, response: { code: 404 } }, null],
    ['another host', { url: 'https://b.example/hls/x' }, null],
    ['nothing was asked', {}, null],
    ['no address at all', { url: 'https://' }, null],
  ])('%s', (_name, change, want) => {
    expect(failedEdge(hls, error(change), page)).toEqual(want)
  })

  test('nobody knows where, without pathways or levels', () => {
    expect(failedEdge({ ...hls, pathwayPriority: null }, error({ url }), page)).toBeNull()
    expect(failedEdge({ ...hls, levels: [] }, error({ url }), page)).toBeNull()
  })
})
