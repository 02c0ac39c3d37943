import { describe, expect, test } from 'vitest'
import {
  formatBitrate,
  formatCount,
  formatDuration,
  formatResolution,
  formatSeconds,
  formatUptime,
  formatVideo,
  formatViewers,
  thumbnailURL,
} from './format'

test.each([
  [0, '0:00'],
  [7_999, '0:07'],
  [724_000, '12:04'],
  [3_599_999, '59:59'],
  [3_600_000, '1:00:00'],
  [3_723_000, '1:02:03'],
  [93_600_000, '26:00:00'],
  [-5_000, '0:00'], // the server's clock is ahead of ours
  [NaN, '0:00'],
])('a duration of %d ms reads %s', (ms, want) => {
  expect(formatDuration(ms)).toBe(want)
})

describe('uptime', () => {
  const now = Date.parse('2026-11-23T20:00:00Z')

  test('counts from the start', () => {
    expect(formatUptime('2026-11-23T18:57:57Z', now)).toBe('1:02:03')
  })

  test('reads other time zones and fractions', () => {
    expect(formatUptime('2026-11-23T20:58:00.250+01:00', now)).toBe('1:59')
  })

  test.each([[null], ['yesterday']])('is unknown for %s', (startedAt) => {
    expect(formatUptime(startedAt, now)).toBeNull()
  })
})

test.each([
  [0, '0'],
  [-3, '0'],
  [NaN, '0'],
  [7, '7'],
  [999, '999'],
  [1_000, '1K'],
  [1_299, '1.2K'],
  [9_999, '9.9K'],
  [34_567, '34K'],
  [999_999, '999K'],
  [1_000_000, '1M'],
  [1_290_000, '1.2M'],
])('a count of %d reads %s', (count, want) => {
  expect(formatCount(count)).toBe(want)
})

test('one viewer is one viewer', () => {
  expect([0, 1, 2, 1_500].map(formatViewers)).toEqual(['0 viewers', '1 viewer', '2 viewers', '1.5K viewers'])
})

test.each([
  [1280, 720, 30, '720p'],
  [1920, 1080, 60, '1080p60'],
  [1920, 1080, 59.94, '1080p60'],
  [1280, 720, 29.97, '720p'],
  [608, 1080, 30, '608p'], // upright: the short side counts
  [0, 480, 0, '480p'],
])('%dx%d at %d reads %s', (width, height, rate, want) => {
  expect(formatResolution(width, height, rate)).toBe(want)
})

test('no video has no resolution', () => {
  expect(formatVideo(null)).toBeNull()
  expect(formatVideo({ width: 0, height: 0, frame_rate: 0 })).toBeNull()
  expect(formatVideo({ width: 1280, height: 720, frame_rate: 60 })).toBe('720p60')
})

test('bit rates and seconds', () => {
  expect([0, 640_000, 5_240_000].map(formatBitrate)).toEqual(['–', '640 kb/s', '5.2 Mb/s'])
  expect([null, Infinity, 1.236].map(formatSeconds)).toEqual(['–', '–', '1.24 s'])
})

test('a thumbnail has a new address every 5 s', () => {
  expect(thumbnailURL('/t.jpg', 10_000)).toBe('/t.jpg?t=2')
  expect(thumbnailURL('/t.jpg', 14_999)).toBe('/t.jpg?t=2')
  expect(thumbnailURL('/t.jpg', 15_000)).toBe('/t.jpg?t=3')
})
