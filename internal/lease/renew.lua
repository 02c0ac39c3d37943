-- KEYS: channel. ARGV: epoch, state, width, height, rate, forget ms, broadcast,
-- ingest, started, ms since it was lost or -1, grace ms, carry, silent ms, health, format, picture.
-- 1 when written, 0 when a higher epoch holds the channel.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) > tonumber(ARGV[1]) then
  return 0
end
local lost = 0
if tonumber(ARGV[10]) >= 0 then lost = ms - tonumber(ARGV[10]) end
-- All fields are written, so that a Redis that lost the record has it whole again.
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', ARGV[2], 'width', ARGV[3], 'height', ARGV[4], 'rate', ARGV[5],
  'broadcast', ARGV[7], 'ingest', ARGV[8], 'started', ARGV[9], 'lost', string.format('%.0f', lost), 'grace', ARGV[11], 'carry', ARGV[12], 'silent', ARGV[13], 'health', ARGV[14], 'format', ARGV[15], 'picture', ARGV[16],
  'seen', string.format('%.0f', ms))
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
