-- KEYS: edges. ARGV: this edge's URL, ms an edge is known for, how many at most.
-- Notes this edge and returns the URLs of all that are alive.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
local alive = {}
for i = 1, #all, 2 do
  if ms - tonumber(all[i + 1]) >= tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] then
    table.insert(alive, all[i])
  end
end
if #alive < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', ms))
  table.insert(alive, ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 10)
return alive
