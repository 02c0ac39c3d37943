-- KEYS: channel. ARGV: broadcast, ms. Ends the broadcast in the place of a holder
-- that has renewed nothing for so long: 2. 1 when it had ended before, 0 while the holder lives.
local f = redis.call('HMGET', KEYS[1], 'broadcast', 'state', 'seen')
if f[1] ~= ARGV[1] or f[2] == 'ended' then return 1 end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ms - tonumber(f[3] or 0) < tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'state', 'ended')
return 2
