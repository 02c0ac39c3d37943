-- KEYS: channel. Returns its record with the age in place of the time seen, or nothing.
local r = redis.call('HMGET', KEYS[1], 'broadcast', 'epoch', 'ingest', 'state', 'started', 'seen', 'width', 'height', 'rate')
if not r[1] then return {} end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
r[6] = string.format('%.0f', math.max(0, ms - tonumber(r[6])))
return r
