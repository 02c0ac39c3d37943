import { afterEach, expect, test, vi } from 'vitest'
import { fetchChannel } from './api'

afterEach(() => vi.unstubAllGlobals())

test.each<[string, Response, string]>([
  ['a channel', Response.json({ name: 'demo' }), 'channel'],
  ['no such channel', Response.json({ code: 'channel_not_found' }, { status: 404 }), 'missing'],
  ['a proxy without api behind it', new Response('404 page not found', { status: 404 }), 'failed'],
  ['a proxy that speaks JSON', Response.json(null, { status: 404 }), 'failed'],
  ['another 404 of api', Response.json({ code: 'not_found' }, { status: 404 }), 'failed'],
  ['api without its database', Response.json({ code: 'unavailable' }, { status: 503 }), 'failed'],
  ['something else', new Response('<!doctype html>'), 'failed'],
])('%s', async (_name, response, kind) => {
  vi.stubGlobal('fetch', () => Promise.resolve(response))
  expect((await fetchChannel('demo')).kind).toBe(kind)
})
