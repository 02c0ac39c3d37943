import { describe as group, expect, test } from 'vitest'
import { apply, compareIds, describe, emptyLog, gap, MAX_LINES, pieces, span, upTo, type ChatEvent } from './chat-log'

const anna = { id: '1', login: 'anna', name: 'Anna' }
const bob = { id: '2', login: 'bob', name: 'Bob' }

function message(id: string, text = id, user = anna): ChatEvent {
  return { id, kind: 'message', time: Number(id.split('-')[0]), user, text }
}

group('a log', () => {
  test('has each event once, in order', () => {
    let log = apply(emptyLog(), [message('5-0'), message('5-1'), message('10-0')])
    log = apply(log, [message('5-1'), message('10-0'), message('11-0')])
    expect(log.lines.map((line) => line.id)).toEqual(['5-0', '5-1', '10-0', '11-0'])
    expect(log.newest).toBe('11-0')
  })

  test('forgets the oldest lines', () => {
    const events = Array.from({ length: MAX_LINES + 5 }, (_, i) => message(`${i + 1}-0`))
    const log = apply(emptyLog(), events)
    expect(log.lines.length).toBe(MAX_LINES)
    expect(log.lines[0]?.id).toBe('6-0')
  })

  test('takes away what moderators take away', () => {
    let log = apply(emptyLog(), [message('1-0', 'a'), message('2-0', 'b', bob), message('3-0', 'c'), message('4-0', 'd', bob)])
    log = apply(log, [{ id: '5-0', kind: 'deleted', time: 5, target: '1-0' }])
    expect(log.lines.map((line) => line.deleted)).toEqual([true, false, false, false])
    log = apply(log, [{ id: '6-0', kind: 'user_cleared', time: 6, subject: bob, ban: true, seconds: 252 }])
    expect(log.lines.map((line) => line.text)).toEqual(['', '', 'c', '', 'Bob may not write for 4:12.'])
    log = apply(log, [{ id: '7-0', kind: 'cleared', time: 7 }])
    expect(log.lines.filter((line) => line.kind === 'message' && !line.deleted)).toEqual([])
  })

  test('says what the room asks', () => {
    const log = apply(emptyLog(), [{ id: '1-0', kind: 'settings', time: 1, settings: { slow: 9, unique: true } }])
    expect(log.settings.slow).toBe(9)
    expect(log.lines[0]?.text).toBe('Now: one message each 9 s, no message twice.')
    expect(describe({})).toBe('Everybody may write.')
  })

  test('pins one message', () => {
    let log = apply(emptyLog(), [message('1-0'), { id: '2-0', kind: 'pinned', time: 2, target: '1-0' }])
    expect(log.pinned).toBe('1-0')
    log = apply(log, [{ id: '3-0', kind: 'deleted', time: 3, target: '1-0' }])
    expect(log.pinned).toBeNull()
  })

  test('tells of a gap', () => {
    const log = gap(apply(emptyLog(), [message('1-0')]), 2)
    expect(log.lines.at(-1)?.kind).toBe('gap')
    expect(log.newest).toBe('1-0')
  })
})

test('in step with a picture, what comes later isn’t there yet', () => {
  const { lines } = apply(emptyLog(), [message('1000-0'), message('2000-0'), message('3000-0')])
  expect(upTo(lines, 2000).length).toBe(2)
  expect(upTo(lines, 999).length).toBe(0)
  expect(upTo(lines, null)).toBe(lines)
})

test('ids are compared as numbers', () => {
  expect(compareIds('9-0', '10-0')).toBeLessThan(0)
  expect(compareIds('10-2', '10-10')).toBeLessThan(0)
  expect(compareIds('10-2', '10-2')).toBe(0)
})

test('addresses lead elsewhere, and only those of the web', () => {
  expect(pieces('see https://a.b/c?d=1. javascript:alert(1)', null)).toEqual([
    { text: 'see ' },
    { text: 'https://a.b/c?d=1', href: 'https://a.b/c?d=1' },
    { text: '. javascript:alert(1)' },
  ])
  expect(pieces('hi @Anna and @annabel', 'anna')).toEqual([{ text: 'hi ' }, { text: '@Anna', mention: true }, { text: ' and ' }, { text: '@annabel' }])
  expect(pieces('', 'anna')).toEqual([])
})

test('times in words', () => {
  expect([9, 59.2, 60, 252, 3600].map(span)).toEqual(['9 s', '60 s', '1:00', '4:12', '1:00:00'])
})
