-- KEYS: edges. ARGV: this edge's URL, ms an edge is known for, how many at most, what
-- this edge says of itself.
-- Notes this edge and returns what all say that are alive. A value is Redis' time and that.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local all = redis.call('HGETALL', KEYS[1])
local alive = {}
for i = 1, #all, 2 do
  local at, said = string.match(all[i + 1], '^(%d+) (.*)$')
  if not at or ms - tonumber(at) >= tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], all[i])
  elseif all[i] ~= ARGV[1] then
    table.insert(alive, said)
  end
end
if #alive < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', ms) .. ' ' .. ARGV[4])
  table.insert(alive, ARGV[4])
end
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 10)
return alive
