-- KEYS: index stream, counts. ARGV: writer, length, expire ms, the first entry's number, entries...
-- Appends those that aren't there yet, and returns how many of this writer's
-- were: fewer than it knows of when Redis has lost some.
local at = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local n = tonumber(ARGV[4])
for i = 5, #ARGV do
  if n > at then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'entry', ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', n))
  end
  n = n + 1
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return at
