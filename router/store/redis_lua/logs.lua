-- Logs: a head of numbers and a sorted set of events by offset. The rules are those of router/store/memory_log.py.
-- An event: offset, sequence, expiry (8 bytes each), bytes it counts for (4), ...
local NEVER, MAX_OFFSET, EVENT_BYTES = 9007199254740992, 9007199254740991, 100
local HEAD = '>dddddddddI4I4'

-- The epoch from which all logs of the partition count at least, and that of its next new one.
local function epochs(base)
  local found = call('HMGET', base .. 'fence', 'g', 'l')
  return tonumber(found[1]), tonumber(found[2])
end

local function new_log(epoch)
  return {epoch = epoch, last = 0, lost = 0, expires = 0, till = 0, next = NEVER, bytes = 0, sorted = 1, top = 0,
          high = 0, low = 0}
end

local function load_log(base, channel)
  local raw = call('GET', base .. 'h:' .. channel)
  if not raw then return nil end
  local log = {}
  log.epoch, log.last, log.lost, log.expires, log.till, log.next, log.bytes, log.sorted, log.top, log.high, log.low =
    unpack(HEAD, raw)
  local least = epochs(base)
  if log.epoch < least then log.epoch = least end
  return log
end

local function save_log(base, channel, log)
  call('SET', base .. 'h:' .. channel, pack(HEAD, log.epoch, log.last, log.lost, log.expires, log.till, log.next,
    log.bytes, log.sorted, log.top, log.high, log.low))
end

-- A channel that begins anew counts from 1, under another epoch.
local function forget_log(base, channel, router)
  call('DEL', base .. 'h:' .. channel, base .. 'l:' .. channel)
  local _, epoch = epochs(base)
  local next_one = math.max(floor(epoch / 512) + 1, now * 1000) * 512 + router
  call('HSET', base .. 'fence', 'l', next_one)
end

-- An event is out of the set: the head is to know.
local function note_gone(log, event)
  local offset = number_at(event, 1)
  local high, low, _, _, size = unpack('>I4I4I4I4I4', event, 9)
  log.bytes = log.bytes - size
  if offset > log.lost then log.lost = offset end
  if high > log.high or (high == log.high and low > log.low) then log.high, log.low = high, low end
end

local function none_left(log)
  log.next, log.sorted, log.top = NEVER, 1, 0
end

-- Drop what has expired, `most` of it.
local function purge(log, key, most)
  if log.next > now then return 0 end
  local gone = 0
  if log.sorted == 1 then
    while true do
      local event = call('ZRANGE', key, 0, 0)[1]
      if not event then none_left(log) return gone end
      log.next = number_at(event, 17)
      if log.next > now or gone >= most then return gone end
      note_gone(log, event)
      call('ZREMRANGEBYRANK', key, 0, 0)
      gone = gone + 1
    end
  end
  local earliest, left = NEVER, false
  for _, event in ipairs(call('ZRANGE', key, 0, -1)) do
    local ends = number_at(event, 17)
    if ends <= now and gone < most then
      note_gone(log, event)
      call('ZREM', key, event)
      gone = gone + 1
    else
      left = true
      if ends < earliest then earliest = ends end
    end
  end
  if left then log.next = earliest else none_left(log) end
  return gone
end

-- Returns: its offset; nothing if it is refused.
local function append(log, key, event, exact, offset, most, most_bytes)
  purge(log, key, NEVER)
  local ends = number_at(event, 9)
  local _, size = unpack('>I4I4', event, 13)
  if not exact then offset = math.max(log.last + 1, offset) end
  if offset > MAX_OFFSET or (exact and size > most_bytes) then return nil end
  if exact and offset <= log.last and call('ZCOUNT', key, offset, offset) > 0 then return nil end
  call('ZADD', key, offset, pack('>I4I4', floor(offset / HALF), offset % HALF) .. event)
  if offset < log.last or ends < log.top then log.sorted = 0 end
  log.last = math.max(log.last, offset)
  log.expires = math.min(math.max(log.expires, ends), MAX_OFFSET)
  log.top = math.max(log.top, ends)
  log.next = math.min(log.next, ends)
  log.bytes = log.bytes + size
  local number = call('ZCARD', key)
  while number > most or log.bytes > most_bytes do
    local first, second = 0, call('ZRANGE', key, 0, 0)[1]
    if exact and number_at(second, 1) == offset then first, second = 1, call('ZRANGE', key, 1, 1)[1] end
    note_gone(log, second)
    call('ZREMRANGEBYRANK', key, first, first)
    number = number - 1
  end
  if number == 0 then none_left(log) end
  return offset
end

-- One write of a channel. Returns: epoch and offset of an event, false for what is none.
local function write_log(base, channel, router, event, ends_at, exact, offset, most, most_bytes)
  local log, key = load_log(base, channel), base .. 'l:' .. channel
  local ends = not event and ends_at > 0 and ends_at <= now
  if log and (ends or (log.till > 0 and log.till <= now)) then
    forget_log(base, channel, router)
    log = nil
  end
  if ends or (not log and not event and ends_at == 0) then return false end
  local made = not log
  if made then
    local _, epoch = epochs(base)
    log = new_log(epoch)
  end
  if not event then
    log.till = ends_at
    save_log(base, channel, log)
    return false
  end
  local place = append(log, key, event, exact, offset, most, most_bytes)
  if place or not made then save_log(base, channel, log) end
  return place and {log.epoch, place} or false
end

-- The log as it is read now: head and key; a head of nothing if there is none.
local function living(base, channel)
  local log = load_log(base, channel)
  if not log or (log.till > 0 and log.till <= now) then
    local _, epoch = epochs(base)
    return new_log(epoch), nil
  end
  return log, base .. 'l:' .. channel
end

local function log_size(base, channel)
  local log, key = living(base, channel)
  if not key then return false end
  local number
  if log.next > now then
    number = call('ZCARD', key)
  else
    number = 0
    for _, event in ipairs(call('ZRANGE', key, 0, -1)) do
      if number_at(event, 17) > now then number = number + 1 end
    end
  end
  return {log.last, number, log.expires}
end

-- A position of kind 1 (the last `a`), 2 (after epoch `a` and offset `b`), 3 (after the ID `c`, or after the sequence
-- `b`) or 4 (after the sequence `b`); `most` bytes of what follows it, 0: all.
-- Returns: epoch, last offset, lost offset and sequence, offset of the event with the ID (-1: none), offset of the newest
-- event behind the position (-1: none), and the events.
local function read_log(base, channel, kind, a, b, c, most)
  local log, key = living(base, channel)
  local answer = {log.epoch, log.last, log.lost, '', -1, -1}
  local whole = key and log.next > now -- nothing of it has expired
  if kind == 0 or (kind == 1 and a == 0) then
    if whole then key = nil end
    kind, a = 1, 0
  end
  local since, high, low = log.last, -1, 0
  if kind == 2 then
    since = b
    if not (a == -1 or ((a == 0 or a == log.epoch) and b <= log.last)) then since = 0 end
  elseif kind >= 3 then
    since = 0
    high, low = unpack('>I4I4', b)
  end
  local events = {}
  if not key then
    -- nothing of it is wanted, or there is nothing
  elseif whole and kind == 1 then
    events = call('ZRANGE', key, -a, -1)
    since = 0
  elseif whole and kind == 2 and most == 0 then
    events = call('ZRANGE', key, '(' .. string.format('%.0f', since), '+inf', 'BYSCORE')
  elseif whole and kind == 2 then
    local weight, place, from = 0, 0, '(' .. string.format('%.0f', since)
    while weight < most do
      local some = call('ZRANGE', key, from, '+inf', 'BYSCORE', 'LIMIT', place, 50)
      for i = 1, #some do
        events[#events + 1] = some[i]
        local size = unpack('>I4', some[i], 25)
        weight = weight + size + EVENT_BYTES
      end
      if #some < 50 then break end
      place = place + 50
    end
    local newest = call('ZRANGE', key, -1, -1)[1]
    if newest and number_at(newest, 1) > since then answer[6] = number_at(newest, 1) end
  else
    for _, event in ipairs(call('ZRANGE', key, 0, -1)) do
      if number_at(event, 17) > now then events[#events + 1] = event else note_gone(log, event) end
    end
    answer[3] = log.lost
    if kind == 1 then
      local newest = {}
      for i = math.max(1, #events - a + 1), #events do newest[#newest + 1] = events[i] end
      events, since = newest, 0
    elseif kind == 3 then
      since = log.last
      for _, event in ipairs(events) do
        local length = unpack('>H', event, 29) -- 2 bytes
        if length > 0 and sub(event, 31, 30 + length) == c then
          since = number_at(event, 1)
          answer[5] = since
          break
        end
        local one, two = unpack('>I4I4', event, 9)
        if one > high or (one == high and two > low) then
          since = number_at(event, 1) - 1
          break
        end
      end
      if answer[5] < 0 and a == 1 then since = 0 end
      high = -1
    end
  end
  answer[4] = pack('>I4I4', log.high, log.low)
  local left, wanted = most == 0 and NEVER or most, 6
  for i = 1, #events do
    local event = events[i]
    local offset = number_at(event, 1)
    local one, two = unpack('>I4I4', event, 9)
    if offset > since and (one > high or (one == high and two > low)) then
      if offset > answer[6] then answer[6] = offset end
      if left > 0 then
        local size = unpack('>I4', event, 25)
        left = left - size - EVENT_BYTES
        wanted = wanted + 1
        answer[wanted] = event
      end
    end
  end
  return answer
end
