import { expect, test } from 'vitest'
import { parseRoute, watchPath } from './route'

test.each([
  ['/', { page: 'home' }],
  ['', { page: 'home' }],
  ['/demo', { page: 'watch', channel: 'demo' }],
  ['/demo/', { page: 'watch', channel: 'demo' }],
  ['/Demo', { page: 'watch', channel: 'demo' }],
  ['/demo/chat', { page: 'chat', channel: 'demo' }],
  ['/demo/overlay', { page: 'overlay', channel: 'demo' }],
  ['/demo/else', { page: 'watch', channel: 'demo' }],
  ['/caf%C3%A9', { page: 'watch', channel: 'café' }],
  ['/%E0%A4%A', { page: 'watch', channel: '%e0%a4%a' }], // malformed, yet no crash
])('%s', (path, want) => {
  expect(parseRoute(path)).toEqual(want)
})

test('a watch page’s address leads back to it', () => {
  expect(parseRoute(watchPath('a b/c'))).toEqual({ page: 'watch', channel: 'a b/c' })
})
