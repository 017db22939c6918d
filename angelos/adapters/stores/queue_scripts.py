"""The scripts of the queues of envelopes, and where they keep what.

All keys of a destination carry its name in braces, so they share a slot of a cluster:

    {queue:NAME}:LANE       a stream for each lane; an entry has `h` header, `b` body, `c` checksum
    {queue:NAME}:meta       a hash: epoch, last, bytes, dropped:LANE
    {queue:NAME}:ids        source and id -> position; :ids:old the older ones
    {queue:NAME}:nacks      position -> how often it was given back, and when it is due (server ms)
    {queue:NAME}:dead       position:m/h/b/r of dead letters; :dead:order their order
    {queue:NAME}:unsaid     dead letters whose fact may not be in the journal yet
    {queue:NAME}:gone       what was removed since the last claim, handed out or not

A position is `<n>-<size * 8 + lane>`: `n` grows over all lanes of a destination, and who
acknowledges knows the lane and the size of a body without looking.
"""

from __future__ import annotations

from collections.abc import Sequence

from angelos.adapters.stores.backlog import LANES
from angelos.adapters.stores.pipeline import Script
from angelos.core.envelopes import Lane
from angelos.core.ids import Offset, PrincipalId

BELL = "queue:bell"
"""The channel on which a destination is named when it has news."""


class QueueKeys:
    """The keys of one destination."""

    def __init__(self, destination: PrincipalId) -> None:
        base = f"{{queue:{destination}}}"
        self.meta = f"{base}:meta"
        self.ids = f"{base}:ids"
        self.old_ids = f"{base}:ids:old"
        self.lanes = tuple(f"{base}:{lane}" for lane in LANES)
        self.nacks = f"{base}:nacks"
        self.dead = f"{base}:dead"
        self.order = f"{base}:dead:order"
        self.unsaid = f"{base}:unsaid"
        self.gone = f"{base}:gone"
        self.put = {
            lane: (self.meta, self.ids, self.old_ids, self.lanes[n], self.gone)
            for n, lane in enumerate(LANES)
        }
        self.claim = (self.meta, self.gone)
        self.all: Sequence[str] = (
            self.meta, *self.lanes, self.nacks, self.dead, self.order, self.unsaid,
            self.ids, self.old_ids, self.gone,
        )  # fmt: skip


def lane_of(position: Offset) -> Lane:
    """Return the lane that a position of ours names."""
    return LANES[int(position.partition("-")[2]) % 8 % len(LANES)]


# What follows takes QueueKeys.all: meta 1, lanes 2-7, nacks 8, dead 9, order 10, unsaid 11,
# ids 12, older ids 13, gone 14.
_FENCE = """
local highest = redis.call('HGET', KEYS[1], 'epoch') or '0'
if highest ~= ARGV[1] then return redis.error_reply('FENCED ' .. highest) end
"""
_NOTE = """
local function note_gone(key, position)
  -- So many that their consumer has to count anew if it acknowledges one of them.
  if redis.call('SADD', key, position) == 1 and redis.call('SCARD', key) > 10000 then
    redis.call('DEL', key)
  end
end
"""
_MOVE = """
local function stream_of(position)
  local lane = tonumber(string.match(position, '-(%d+)$')) % 8
  return lane < 6 and KEYS[2 + lane] or nil
end
local function remove(position, stream)
  if redis.call('XDEL', stream, position) == 0 then return false end
  local size = tonumber(string.match(position, '-(%d+)$'))
  redis.call('HINCRBY', KEYS[1], 'bytes', -math.floor(size / 8))
  return true
end
local function bury(position, stream, notes, readable)
  local entry = redis.call('XRANGE', stream, position, position)[1]
  if not entry then return false end
  local fields, raw = {}, {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
    raw[#raw + 1] = entry[2][i + 1]
  end
  if readable then
    redis.call('HSET', KEYS[9], position .. ':h', fields['h'], position .. ':b', fields['b'])
  else
    redis.call('HSET', KEYS[9], position .. ':r', table.concat(raw))
  end
  redis.call('HSET', KEYS[9], position .. ':m', notes)
  redis.call('ZADD', KEYS[10], string.match(position, '^(%d+)'), position)
  redis.call('SADD', KEYS[11], position)
  redis.call('HDEL', KEYS[8], position)
  return remove(position, stream)
end
"""
_APPEND = """
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function size_of(position)
  return math.floor(tonumber(string.match(position, '-(%d+)$')) / 8)
end
local function append(stream, lane, n, header, body, sum)
  local low = #body * 8 + lane
  local position = string.format('%.0f-%.0f', n, low)
  local done = redis.pcall('XADD', stream, position, 'h', header, 'b', body, 'c', sum)
  if type(done) == 'table' and done.err then
    -- Another writer left a higher id in this stream: go on behind it.
    local info = redis.call('XINFO', 'STREAM', stream)
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        n = 1 + tonumber(string.match(info[i + 1], '^(%d+)'))
      end
    end
    position = string.format('%.0f-%.0f', n, low)
    redis.call('XADD', stream, position, 'h', header, 'b', body, 'c', sum)
  end
  return position, n
end
"""

# KEYS: meta, ids, older ids, the lane's stream, gone. ARGV: bell, destination, ids remembered,
# capacity, lossy, lane, the most bytes of all lanes together (0: any); then of each envelope source
# and id, header, body and checksum. Returns of each its position; or {position, duplicate, dropped}
# if it was put before, if it displaced others, or, without a position, if there was no room.
PUT = Script(
    _APPEND
    + _NOTE
    + """
local stream, lane, answers, ids, seen = KEYS[4], tonumber(ARGV[6]), {}, {}, {}
for i = 8, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local new = redis.call('HMGET', KEYS[2], unpack(ids))
local old = redis.call('HMGET', KEYS[3], unpack(ids))
local meta = redis.call('HMGET', KEYS[1], 'last', 'bytes')
local last, held = tonumber(meta[1] or '0'), tonumber(meta[2] or '0')
local length, capacity, most = redis.call('XLEN', stream), tonumber(ARGV[4]), tonumber(ARGV[7])
local now, fresh, lost = clock(), {}, 0
for i, id in ipairs(ids) do
  local at = 4 + 4 * i
  local earlier = new[i] or old[i] or seen[id]
  if earlier then
    answers[i] = {earlier, 1, 0}
  elseif most > 0 and held > 0 and held + #ARGV[at + 2] > most
      or length >= capacity and ARGV[5] == '0' then
    answers[i] = {'', 0, 0}
  else
    local dropped = 0
    if length >= capacity then
      local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
      redis.call('XDEL', stream, oldest)
      note_gone(KEYS[5], oldest)
      held = held - size_of(oldest)
      length, dropped, lost = length - 1, 1, lost + 1
    end
    last = math.max(now, last + 1)
    local position
    position, last = append(stream, lane, last, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
    held, length, seen[id] = held + #ARGV[at + 2], length + 1, position
    fresh[#fresh + 1], fresh[#fresh + 2] = id, position
    answers[i] = dropped > 0 and {position, 0, dropped} or position
  end
end
if #fresh == 0 then return answers end
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', last),
  'bytes', string.format('%.0f', held))
if lost > 0 then redis.call('HINCRBY', KEYS[1], 'dropped:' .. ARGV[6], lost) end
redis.call('HSET', KEYS[2], unpack(fresh))
if redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[3]) then
  redis.call('RENAME', KEYS[2], KEYS[3])
end
redis.call('PUBLISH', ARGV[1], ARGV[2] .. ' +' .. ARGV[6])
return answers
"""
)

# KEYS: meta, gone. ARGV: bell, destination, holder. Returns the new epoch.
CLAIM = Script("""
redis.call('DEL', KEYS[2])
local epoch = redis.call('HINCRBY', KEYS[1], 'epoch', 1)
redis.call('HSET', KEYS[1], 'holder', ARGV[3])
redis.call('PUBLISH', ARGV[1], ARGV[2] .. ' ' .. epoch)
return epoch
""")

# ARGV: epoch, entries, bytes, then from where each lane is read (empty: not at all), then single
# positions. Returns {now in ms, for each lane {more, entries}, entries of the positions, bytes of
# all that waits, or -1 if some was given back}; an entry is {position, fields, its part of nacks}.
FETCH = Script(
    _FENCE
    + """
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local given_back = redis.call('HLEN', KEYS[8]) > 0
local function noted(entry)
  if given_back then entry[3] = redis.call('HGET', KEYS[8], entry[1]) end
  return entry
end
local function size_of(fields)
  if #fields == 6 then return #fields[2] + #fields[4] + 20 end
  local size = 0
  for _, word in ipairs(fields) do size = size + #word end
  return size
end
local most, lanes = tonumber(ARGV[2]), {}
for lane = 1, 6 do
  local start, entries, more = ARGV[3 + lane], {}, 0
  if start ~= '' then
    local budget, step = tonumber(ARGV[3]), 1
    while #entries < most and budget > 0 do
      local page = redis.call('XRANGE', KEYS[1 + lane], start, '+', 'COUNT', step)
      for _, entry in ipairs(page) do
        entries[#entries + 1] = noted(entry)
        budget = budget - size_of(entry[2])
      end
      if #page < step then break end
      start = '(' .. page[#page][1]
      local size = math.max(1, (tonumber(ARGV[3]) - budget) / #entries)
      step = math.max(1, math.min(most - #entries, math.floor(budget / size)))
      more = 1
    end
    if #entries < most and budget > 0 then more = 0 end
  end
  lanes[lane] = {more, entries}
end
local single = {}
for i = 10, #ARGV do
  for lane = 1, 6 do
    local entry = redis.call('XRANGE', KEYS[1 + lane], ARGV[i], ARGV[i])[1]
    if entry then single[#single + 1] = noted(entry) end
  end
end
local held = given_back and -1 or tonumber(redis.call('HGET', KEYS[1], 'bytes') or '0')
return {now, lanes, single, held}
"""
)

# ARGV: epoch, positions, each once. Returns how many were there. Of what is not, the bytes were
# subtracted when it was removed; if that is not noted, all that waits is counted anew.
ACK = Script(
    _FENCE
    + """
local lanes, count, total, size = {}, 0, 0, 0
for i = 2, #ARGV do
  local low = tonumber(string.match(ARGV[i], '-(%d+)$'))
  local lane = low % 8
  if lane < 6 then
    local pages = lanes[lane] or {{}}
    if #pages[#pages] == 1000 then pages[#pages + 1] = {} end
    local page = pages[#pages]
    page[#page + 1] = ARGV[i]
    lanes[lane], total, size = pages, total + 1, size + math.floor(low / 8)
  end
end
for lane, pages in pairs(lanes) do
  for _, page in ipairs(pages) do
    count = count + redis.call('XDEL', KEYS[2 + lane], unpack(page))
  end
end
local missing = total - count
if missing > 0 then
  for i = 2, #ARGV do
    if redis.call('SREM', KEYS[14], ARGV[i]) == 1 then
      missing = missing - 1
      size = size - math.floor(tonumber(string.match(ARGV[i], '-(%d+)$')) / 8)
    end
  end
end
if missing == 0 then
  if size > 0 then redis.call('HINCRBY', KEYS[1], 'bytes', -size) end
else
  local held = 0
  for lane = 2, 7 do
    local start = '-'
    while start do
      local page = redis.call('XRANGE', KEYS[lane], start, '+', 'COUNT', 32)
      for _, entry in ipairs(page) do
        held = held + math.floor(tonumber(string.match(entry[1], '-(%d+)$')) / 8)
      end
      start = #page == 32 and '(' .. page[32][1]
    end
  end
  redis.call('HSET', KEYS[1], 'bytes', string.format('%.0f', held))
end
if redis.call('HLEN', KEYS[8]) > 0 then
  for i = 2, #ARGV do redis.call('HDEL', KEYS[8], ARGV[i]) end
end
return count
"""
)

# ARGV: epoch, position, lane, detail, final, first ms, factor, most ms, attempts, jitter, time.
# Returns {0}: it is not there; {1, nacks, delay in ms}: it waits; {2, nacks}: it is dead.
NACK = Script(
    _FENCE
    + _MOVE
    + """
local stream = KEYS[2 + tonumber(ARGV[3])]
if not redis.call('XRANGE', stream, ARGV[2], ARGV[2])[1] then return {0} end
local noted = redis.call('HGET', KEYS[8], ARGV[2])
local nacks = 1 + (noted and tonumber(string.match(noted, '^(%d+)')) or 0)
local reason = ARGV[5] == '1' and 'refused' or nacks >= tonumber(ARGV[9]) and 'attempts' or nil
if reason then
  local notes = {reason = reason, detail = ARGV[4], at = tonumber(ARGV[11]), attempts = nacks}
  bury(ARGV[2], stream, cjson.encode(notes), true)
  return {2, nacks}
end
local delay = tonumber(ARGV[6]) * tonumber(ARGV[7]) ^ math.min(nacks - 1, 1000)
delay = math.floor(math.min(delay, tonumber(ARGV[8])) * (0.5 + tonumber(ARGV[10])))
local time = redis.call('TIME')
local due = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + delay
redis.call('HSET', KEYS[8], ARGV[2], nacks .. ' ' .. string.format('%.0f', due))
return {1, nacks, delay}
"""
)

# ARGV: epoch, position, lane, notes, readable. Returns whether it was there.
BURY = Script(
    _FENCE
    + _MOVE
    + """
return bury(ARGV[2], KEYS[2 + tonumber(ARGV[3])], ARGV[4], ARGV[5] == '1') and 1 or 0
"""
)

# ARGV: source and id of each. Returns the positions that were removed.
REMOVE = Script(
    _MOVE
    + _NOTE
    + """
local removed = {}
for _, id in ipairs(ARGV) do
  local position = redis.call('HGET', KEYS[12], id) or redis.call('HGET', KEYS[13], id)
  if position then
    if remove(position, stream_of(position)) then
      redis.call('HDEL', KEYS[8], position)
      note_gone(KEYS[14], position)
      removed[#removed + 1] = position
    end
  end
end
return removed
"""
)

# ARGV: bell, destination, capacity, then position, lane, id, header and checksum of each letter.
# Returns how many were put; -1: there is no room.
REPLAY = Script(
    _APPEND
    + """
local coming = {}
for i = 4, #ARGV, 5 do
  local lane = tonumber(ARGV[i + 1])
  coming[lane] = (coming[lane] or 0) + 1
end
for lane, count in pairs(coming) do
  if redis.call('XLEN', KEYS[2 + lane]) + count > tonumber(ARGV[3]) then return -1 end
end
local count, last = 0, tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
for i = 4, #ARGV, 5 do
  local position, lane = ARGV[i], tonumber(ARGV[i + 1])
  local body = redis.call('HGET', KEYS[9], position .. ':b')
  if body then
    local n, again = math.max(clock(), last + 1)
    again, last = append(KEYS[2 + lane], lane, n, ARGV[i + 3], body, ARGV[i + 4])
    redis.call('HSET', KEYS[1], 'last', string.format('%.0f', last))
    redis.call('HINCRBY', KEYS[1], 'bytes', #body)
    redis.call('HSET', KEYS[12], ARGV[i + 2], again)
    redis.call('HDEL', KEYS[9], position .. ':m', position .. ':h', position .. ':b')
    redis.call('ZREM', KEYS[10], position)
    count = count + 1
  end
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return count
"""
)

# ARGV: positions. Returns how many there were.
DROP_DEAD = Script("""
local count = 0
for _, position in ipairs(ARGV) do
  count = count + redis.call('ZREM', KEYS[10], position)
  for _, part in ipairs({':m', ':h', ':b', ':r'}) do
    redis.call('HDEL', KEYS[9], position .. part)
  end
end
return count
""")
