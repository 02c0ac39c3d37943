import { expect, test } from 'vitest'
import { Sources } from './sources'

const page = 'https://a.example/hls/demo/index.m3u8'
const other = 'https://b.example:8080/hls/demo/index.m3u8'
const below = (edge: string) => edge.replace('index.m3u8', 'b1/source/index.m3u8')

function turns(sources: Sources, count: number): string[] {
  return Array.from({ length: count }, () => {
    sources.fails()
    return sources.current
  })
}

test('without another edge it stays', () => {
  const sources = new Sources(page)
  sources.learn([below(page)])
  expect(turns(sources, 2)).toEqual([page, page])
})

test('edges take turns, beginning after the one that served', () => {
  const sources = new Sources(page)
  sources.learn([below(page), below(page), below(other)])
  expect(sources.current).toBe(page)
  sources.serves(below(other))
  expect(sources.current).toBe(other)
  expect(turns(sources, 3)).toEqual([page, other, page])
})

test('the page may be in front of all edges', () => {
  const front = 'https://live.example/hls/demo/index.m3u8'
  const sources = new Sources(front)
  sources.learn([below(page), below(other)])
  sources.serves(below(page))
  expect(turns(sources, 3)).toEqual([other, front, page])
})

test('what a newer playlist no longer names is forgotten, but for where it came from', () => {
  const third = 'https://c.example/hls/demo/index.m3u8'
  const sources = new Sources(page)
  sources.learn([below(page), below(other)])
  sources.serves(below(other))
  sources.learn([below(third)])
  expect(turns(sources, 3)).toEqual([third, page, other])
  sources.serves(below(third))
  sources.learn([below(third)])
  expect(turns(sources, 2)).toEqual([page, third])
})
