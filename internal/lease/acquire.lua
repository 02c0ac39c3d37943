-- KEYS: channel. ARGV: new broadcast, ingest, busy ms, grace ms, forget ms.
-- Returns the record to go on with, or nothing while the holder is busy.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local old = redis.call('HMGET', KEYS[1], 'state', 'seen', 'ingest', 'epoch')
local state, seen, epoch = old[1], tonumber(old[2] or 0), tonumber(old[4] or 0)
local age = ms - seen
if state == 'live' and age < tonumber(ARGV[3]) and old[3] ~= ARGV[2] then
  return {}
end
-- At least TIME, so that a Redis that lost its newest writes never reuses an epoch.
epoch = math.max(epoch + 1, ms)
if (state ~= 'live' and state ~= 'reconnecting') or age > tonumber(ARGV[4]) then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'broadcast', ARGV[1], 'started', string.format('%.0f', ms), 'sequence', 0, 'discontinuity', 0,
    'media_end', 0, 'wall_end', string.format('%.0f', ms), 'width', 0, 'height', 0, 'rate', '0')
end
redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', epoch), 'ingest', ARGV[2], 'state', 'live', 'seen', string.format('%.0f', ms))
redis.call('PEXPIRE', KEYS[1], ARGV[5])
local r = redis.call('HMGET', KEYS[1], 'broadcast', 'epoch', 'ingest', 'state', 'started', 'seen',
  'sequence', 'discontinuity', 'media_end', 'wall_end', 'width', 'height', 'rate')
r[6] = '0'
return r
