-- KEYS: channel. ARGV: broadcast, ingest, busy ms, forget ms.
-- Returns the new record, or nothing while another ingest's publisher is sending.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local old = redis.call('HMGET', KEYS[1], 'state', 'seen', 'ingest', 'epoch')
if old[1] == 'live' and ms - tonumber(old[2]) < tonumber(ARGV[3]) and old[3] ~= ARGV[2] then
  return {}
end
-- At least TIME, so that a Redis that lost its newest writes never reuses an epoch.
local epoch = string.format('%.0f', math.max(tonumber(old[4] or 0) + 1, ms))
local at = string.format('%.0f', ms)
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'broadcast', ARGV[1], 'epoch', epoch, 'ingest', ARGV[2], 'state', 'live',
  'started', at, 'seen', at, 'width', 0, 'height', 0, 'rate', '0')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {ARGV[1], epoch, ARGV[2], 'live', at, '0', '0', '0', '0'}
