import { expect, test } from 'vitest'
import { AUTO, autoLabel, buttonLabel, qualities, type Variant } from './quality'

function variant(height: number, frameRate: number, bitrate: number): Variant {
  return { width: Math.round((height * 16) / 9), height, frameRate, bitrate }
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
  const unknown = { width: 0, height: 0, frameRate: 0 }
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
