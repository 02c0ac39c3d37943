-- KEYS: slots of a broadcast. ARGV: slot, worker as JSON, its lease epoch, forget ms.
-- Of an earlier lease nothing is written. Under one lease its ingest decides.
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and cjson.decode(old).epoch.lease > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
