-- KEYS: channel. Returns its record and its age, as name, value, ...; or nothing.
local r = redis.call('HGETALL', KEYS[1])
if #r == 0 then return r end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
table.insert(r, 'age')
table.insert(r, string.format('%.0f', math.max(0, ms - tonumber(redis.call('HGET', KEYS[1], 'seen') or 0))))
return r
