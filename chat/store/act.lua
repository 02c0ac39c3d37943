-- Does what a moderator asks for, and tells all processes.
-- KEYS: the stream, the audit log, and the hashes that change
-- ARGV: the channel of hints, the event's JSON, the most entries of the stream, those of the audit log, and
--       for each change the number of its hash, a field and its value; an empty value deletes the field
-- Answers the event's id.
for i = 5, #ARGV, 3 do
	local hash, field, value = KEYS[2 + tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
	if value == '' then
		redis.call('HDEL', hash, field)
	else
		redis.call('HSET', hash, field, value)
	end
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'e', ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'e', ARGV[2])
redis.call('PUBLISH', ARGV[1], (newest and newest[1] or '') .. ' ' .. id .. ' ' .. ARGV[2])
return id
