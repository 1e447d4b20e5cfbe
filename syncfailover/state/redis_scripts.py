"""The scripts that Redis runs, each of them whole: nobody else's command comes between a look and what follows from it.

Each returns the server's time, as `TIME` does, and what it found. A key of another type, or whose value cannot be, counts
as one that is not there, and is overwritten; none of them reads more of a value than it may hold. They need effects to be
replicated rather than scripts, which is so from Redis 5 on.
"""

from __future__ import annotations

from hashlib import sha1

from .store import MEMBER_S

#: Seconds for which the last token of a lease is remembered, and what is in an account.
_LEASE_KEPT_S, _ACCOUNT_KEPT_S = 3600, 86400
#: Seconds that an entry may be ahead of the server's time, and that a lease may last: what is beyond cannot be.
_SKEW_S, _LONGEST_LEASE_S = 5, 300
#: Bytes that stand before an entry's data at most.
HEADER = 128


class Script:
    """A script, and the name that Redis knows it by once it has run."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text).hexdigest()  # noqa: S324 - that is what Redis calls scripts by

    def __repr__(self) -> str:
        return f"<Script {self.sha}>"


def _filled(text: str, **values: int) -> str:
    for name, value in values.items():
        text = text.replace(f"${name}", str(value))
    return text


#: A lease is `owner token end`; the token goes on growing after the end, and is never older than the server's time, so
#: that it grows even if the server has lost everything. Times are in milliseconds here.
_LEASE = _filled(
    """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function lease_of(key)
  local value = redis.pcall('GETRANGE', key, 0, 127)
  local owner, token, ends
  if type(value) == 'string' then owner, token, ends = string.match(value, '^(%x+) (%d+) (%d+)$') end
  token, ends = tonumber(token), tonumber(ends)
  if not token or math.max(token, ends) > now + $LONGEST then return '', 0, 0 end
  return owner, token, ends
end
local function keep(key, owner, token, ends)
  redis.call('SET', key, string.format('%s %.0f %.0f', owner, token, ends), 'EX', $KEPT)
end
""",
    LONGEST=1000 * _LONGEST_LEASE_S,
    KEPT=_LEASE_KEPT_S,
)

#: KEYS: leases. ARGV: whose, milliseconds. Finds the token of each that was granted or renewed, 0 for the others.
LEASE = Script(
    _LEASE
    + """
local tokens = {}
for i, key in ipairs(KEYS) do
  local owner, token, ends = lease_of(key)
  tokens[i] = 0
  if owner == ARGV[1] or ends < now then
    if owner ~= ARGV[1] then token = math.max(token + 1, now) end
    keep(key, ARGV[1], token, now + ARGV[2])
    tokens[i] = token
  end
end
return {time[1], time[2], tokens}
"""
)


#: KEYS: leases. ARGV: whose.
RELEASE = Script(
    _LEASE
    + """
for _, key in ipairs(KEYS) do
  local owner, token = lease_of(key)
  if owner == ARGV[1] then keep(key, '0', token, 0) end
end
return {time[1], time[2], false}
"""
)

#: KEYS: of each record, its entry and its endpoint's lease. ARGV: the channel, whose message it is, then of each record
#: when it became so, when it is to be forgotten, its gist, its token (empty where none is asked for), its data. An entry
#: is `when gist`, a newline and the data. Peers are told where a gist has changed.
WRITE = Script(
    _LEASE
    + _filled(
        """
local news = false
for i = 1, #KEYS / 2 do
  local key = KEYS[2 * i - 1]
  local at, ends, gist, token, data = unpack(ARGV, 5 * i - 2, 5 * i + 2)
  local old, old_at, old_gist = redis.pcall('GETRANGE', key, 0, $HEADER), nil, nil
  if type(old) == 'string' then old_at, old_gist = string.match(old, '^(%S+) (%S*)\\n') end
  old_at = tonumber(old_at)
  local known = old_at and old_at >= tonumber(at) and old_at <= now / 1000 + $SKEW
  local left = math.floor(tonumber(ends) * 1000 - now)
  local fenced = false
  if token ~= '' then
    local _, granted = lease_of(KEYS[2 * i])
    fenced = tonumber(token) < granted
  end
  if left > 0 and not known and not fenced then
    redis.call('SET', key, at .. ' ' .. gist .. '\\n' .. data, 'PX', left)
    news = news or (gist ~= '' and gist ~= old_gist)
  end
end
if news then redis.pcall('PUBLISH', ARGV[1], ARGV[2]) end
return {time[1], time[2], false}
""",
        HEADER=HEADER - 1,
        SKEW=_SKEW_S,
    )
)

#: KEYS: entries. ARGV: the bytes to read of each at most. Finds what each holds; `?` for a key of another type.
READ = Script(
    """
local time = redis.call('TIME')
local found = {}
for i, key in ipairs(KEYS) do
  local part = redis.pcall('GETRANGE', key, 0, ARGV[1] - 1)
  if type(part) == 'table' then
    if not string.find(part.err, 'WRONGTYPE', 1, true) then return part end
    part = '?'
  end
  found[i] = part
end
return {time[1], time[2], found}
"""
)

#: KEYS: of each account itself and its members. ARGV: of each its change, its capacity (empty for none), what it earns per
#: second, and who of its members this is (empty where they are not counted). Finds what is in each then, by the rule of
#: `Account.settled`.
SETTLE = Script(
    _filled(
        """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local found = {}
for i = 1, #KEYS / 2 do
  local key, members_key, members = KEYS[2 * i - 1], KEYS[2 * i], 1
  local change, capacity, per_second, member = unpack(ARGV, 4 * i - 3, 4 * i)
  capacity = tonumber(capacity)
  if member ~= '' then
    if redis.call('TYPE', members_key).ok ~= 'zset' then redis.call('DEL', members_key) end
    redis.call('ZADD', members_key, now + $MEMBER, member)
    redis.call('ZREMRANGEBYSCORE', members_key, '-inf', now)
    redis.call('ZREMRANGEBYSCORE', members_key, now + $MEMBER + $SKEW, '+inf')
    redis.call('EXPIRE', members_key, 2 * $MEMBER)
    members = math.max(1, redis.call('ZCARD', members_key))
  end
  local total, at = capacity or 0, now
  local value = redis.pcall('GETRANGE', key, 0, 127)
  if type(value) == 'string' then
    local amount, since = string.match(value, '^(%S+) (%S+)$')
    amount, since = tonumber(amount), tonumber(since)
    if amount and since and amount - amount == 0 and since - since == 0 then total, at = amount, since end
  end
  total = total + math.max(0, now - at) * per_second * members + change
  if capacity then total = math.min(total, capacity * members) end
  found[i] = string.format('%.17g', math.max(0, total))
  redis.call('SET', key, found[i] .. ' ' .. string.format('%.6f', now), 'EX', $KEPT)
end
return {time[1], time[2], found}
""",
        KEPT=_ACCOUNT_KEPT_S,
        MEMBER=round(MEMBER_S),
        SKEW=_SKEW_S,
    )
)
