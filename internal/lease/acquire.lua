-- KEYS: channel. ARGV: fresh broadcast, ingest, busy ms, forget ms, grace ms.
-- Returns the new record and, when it goes on with a broadcast, the one before,
-- each as name, value, ...; nothing while another ingest's publisher is sending.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local old = redis.call('HGETALL', KEYS[1])
local f = {}
for i = 1, #old, 2 do f[old[i]] = old[i + 1] end
local age = ms - tonumber(f.seen or 0)
if f.state == 'live' and age < tonumber(ARGV[3]) and f.ingest ~= ARGV[2] then
  return {}
end
local lost = tonumber(f.lost or 0)
if lost == 0 then lost = tonumber(f.seen or 0) end
local resume = f.broadcast and f.state ~= 'ended' and ms - lost < tonumber(f.grace or 0)
-- At least TIME, so that a Redis that lost its newest writes never reuses an epoch.
local epoch = string.format('%.0f', math.max(tonumber(f.epoch or 0) + 1, ms))
local at = string.format('%.0f', ms)
if not resume then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'broadcast', ARGV[1], 'started', at)
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'ingest', ARGV[2], 'state', 'live', 'seen', at, 'lost', '0', 'silent', '0', 'grace', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local record = redis.call('HGETALL', KEYS[1])
if not resume then return {record} end
table.insert(old, 'age')
table.insert(old, string.format('%.0f', age))
return {record, old}
