import { expect, test } from 'vitest'
import { command } from './chat-command'

test.each([
  ['hello', null],
  ['/me waves', null],
  ['/unknown thing', null],
  ['/ban @Anna spam again', { do: 'ban', login: 'anna', reason: 'spam again' }],
  ['/timeout anna 30 spam', { do: 'timeout', login: 'anna', seconds: 30, reason: 'spam' }],
  ['/timeout anna be nice', { do: 'timeout', login: 'anna', seconds: 600, reason: 'be nice' }],
  ['/clear', { do: 'clear' }],
  ['/announce Tonight at 8', { do: 'announce', reason: 'Tonight at 8' }],
  ['/slow 9', { do: 'settings', settings: { slow: 9, unique: true } }],
  ['/slowoff', { do: 'settings', settings: { slow: 0, unique: true } }],
  ['/uniquechatoff', { do: 'settings', settings: { unique: false } }],
  ['/shield', { do: 'settings', settings: { shield: true, unique: true } }],
])('%s', (text, want) => {
  expect(command(text, { unique: true })).toEqual(want)
})
