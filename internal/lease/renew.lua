-- KEYS: channel. ARGV: epoch, state, sequence, discontinuity, media end, wall
-- end, width, height, rate, forget ms, broadcast, ingest, started.
-- 1 when written, 0 when a higher epoch holds the channel.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0) > tonumber(ARGV[1]) then
  return 0
end
-- All fields are written, so that a Redis that lost the record has it whole again.
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', ARGV[2], 'sequence', ARGV[3], 'discontinuity', ARGV[4],
  'media_end', ARGV[5], 'wall_end', ARGV[6], 'width', ARGV[7], 'height', ARGV[8], 'rate', ARGV[9],
  'broadcast', ARGV[11], 'ingest', ARGV[12], 'started', ARGV[13], 'seen', string.format('%.0f', ms))
redis.call('PEXPIRE', KEYS[1], ARGV[10])
return 1
