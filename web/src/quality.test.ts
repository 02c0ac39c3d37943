import { expect, test } from 'vitest'
import { AUTO, autoAfter, autoLabel, buttonLabel, qualities, type Variant } from './quality'

function variant(height: number, frameRate: number, bitrate: number, videoCodec = 'avc1.64001f'): Variant {
  return { width: Math.round((height * 16) / 9), height, frameRate, bitrate, videoCodec }
}

test('the best comes first and keeps its index', () => {
  const list = qualities([variant(360, 30, 8e5), variant(720, 60, 4e6), variant(480, 30, 1.4e6)])
  expect(list).toEqual([
    { index: 1, label: '720p60' },
    { index: 2, label: '480p' },
    { index: 0, label: '360p' },
  ])
})

test('the same height twice: the higher frame rate first', () => {
  const list = qualities([variant(720, 30, 3e6), variant(720, 60, 3e6)])
  expect(list.map((quality) => quality.label)).toEqual(['720p60', '720p'])
})

test('entries that would read the same carry their bit rate', () => {
  const list = qualities([variant(720, 30, 2.5e6), variant(720, 30, 6e6), variant(360, 30, 8e5)])
  expect(list.map((quality) => quality.label)).toEqual(['720p · 6.0 Mb/s', '720p · 2.5 Mb/s', '360p'])
})

test('a variant without a size is named by its bit rate, or not at all', () => {
  const unknown = { width: 0, height: 0, frameRate: 0, videoCodec: '' }
  expect(qualities([{ ...unknown, bitrate: 8e5 }])[0]?.label).toBe('800 kb/s')
  expect(qualities([{ ...unknown, bitrate: 0 }])[0]?.label).toBe('Video')
})

test('the menu and its button say what is playing', () => {
  const list = qualities([variant(720, 30, 3e6), variant(360, 30, 8e5)])
  expect(autoLabel(list, 1)).toBe('Auto (360p)')
  expect(autoLabel(list, AUTO)).toBe('Auto')
  expect(buttonLabel(list, 0)).toBe('720p')
  expect(buttonLabel([], AUTO)).toBe('Auto')
})

test.each([
  ['av01.0.05M.08', 'Source (AV1)'],
  ['hvc1.1.6.L93.B0', 'Source (HEVC)'],
  ['hev1.1.6.L93.B0', 'Source (HEVC)'],
])('a source in %s is named by its format, and stands before the rung of its size', (videoCodec, label) => {
  const list = qualities([variant(360, 30, 8e5), variant(720, 60, 3e6), variant(720, 60, 2e6, videoCodec)])
  expect(list.map((quality) => [quality.index, quality.label])).toEqual([
    [2, label],
    [1, '720p60'],
    [0, '360p'],
  ])
})

test('two sources, of different sizes', () => {
  const list = qualities([variant(480, 30, 1e6, 'av01.0.04M.08'), variant(720, 30, 2e6, 'av01.0.05M.08')])
  expect(list.map((quality) => quality.label)).toEqual(['Source (AV1) · 2.0 Mb/s', 'Source (AV1) · 1.0 Mb/s'])
})

test('from the source in another format back to Auto', () => {
  const list = [variant(360, 30, 8e5), variant(720, 30, 3e6), variant(720, 30, 2e6, 'av01.0.05M.08')]
  expect(autoAfter(list, 2, 5e6)).toBe(1)
  expect(autoAfter(list, 2, 2e6)).toBe(0)
  expect(autoAfter(list, 2, 1e5)).toBe(0)
  expect(autoAfter(list, 1, 5e6)).toBe(AUTO)
  expect(autoAfter(list, -1, 5e6)).toBe(AUTO)
  expect(autoAfter(list.slice(2), 0, 5e6)).toBe(AUTO)
})
