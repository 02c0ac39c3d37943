-- Appends a message to a room, unless the room's rules refuse it, and tells all processes.
-- KEYS: the stream, bans, settings, roles, seen (users who wrote), pace (of this user), sent (the message's nonce)
-- ARGV: the channel of hints, the event's JSON, the user's ID, the nonce ("" for none), how long it is kept in ms,
--       messages in a span, those of a moderator, the span in ms, the most entries, how many users are remembered,
--       the user's role where that isn't kept in roles
-- Answers {"", id}, or {why it is refused, when that ends in ms since 1970 or "0"}.
local stream, bans, settings, roles, seen, pace, sent = unpack(KEYS)
local hints, doc, user, nonce, kept, few, many, span, entries, remembered, role = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

if nonce ~= '' then
	local id = redis.call('GET', sent)
	if id then return {'', id} end
end

local ban = redis.call('HGET', bans, user)
if ban then
	local till = tonumber(ban)
	if till == 0 then return {'banned', '0'} end
	if till > now then return {'timed_out', ban} end
	redis.call('HDEL', bans, user)
end
if role == '' then role = redis.call('HGET', roles, user) end
local moderates = role == 'broadcaster' or role == 'moderator'
local known = redis.call('ZSCORE', seen, user)
local text = redis.sha1hex(doc)
if not moderates then
	local rules = redis.call('HMGET', settings, 'slow', 'unique', 'shield')
	if rules[3] == '1' and not known and role ~= 'vip' then return {'shield', '0'} end
	local slow = tonumber(rules[1] or '0') * 1000
	local last = tonumber(redis.call('HGET', pace, 'last') or '0')
	if role ~= 'vip' and last + slow > now then return {'slow', string.format('%d', last + slow)} end
	if rules[2] == '1' and redis.call('HGET', pace, 'text') == text then return {'duplicate', '0'} end
end
local began = tonumber(redis.call('HGET', pace, 'began') or '0')
local count = tonumber(redis.call('HGET', pace, 'count') or '0')
if began + span <= now then began, count = now, 0 end
if count >= tonumber(moderates and many or few) then return {'rate', string.format('%d', began + span)} end
redis.call('HSET', pace, 'began', string.format('%d', began), 'count', count + 1, 'last', string.format('%d', now), 'text', text)
redis.call('PEXPIRE', pace, 3600000)
redis.call('ZADD', seen, now, user)
if not known then
	redis.call('ZREMRANGEBYRANK', seen, 0, -remembered - 1)
	doc = string.gsub(doc, '^{', '{"first":true,', 1)
end

local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local id = redis.call('XADD', stream, 'MAXLEN', '~', entries, '*', 'e', doc)
if nonce ~= '' then redis.call('SET', sent, id, 'PX', kept) end
redis.call('PUBLISH', hints, (newest and newest[1] or '') .. ' ' .. id .. ' ' .. doc)
return {'', id}
