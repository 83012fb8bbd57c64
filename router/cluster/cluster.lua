#!lua flags=allow-oom
-- The hosts of a cluster and the placements of its routers, in one step: renew, drop what has run out, act, read.
--
-- KEYS: hosts (ID -> record), routers (number -> 'epoch host state to', - for none), farm (see below).
-- ARGV: 1 what: 'beat', 'leave', or 'look' by one that is no host; 2 ID; 3 record; 4 lease in milliseconds; 5 how many
-- hosts there may be; 6 how many routers run on this host, then for each its number, its epoch, and 1 if it is ready;
-- then actions of four: 'take', number, 0, '-'; 'give' or 'gave', number, epoch, next host or '-'.
-- Returns: milliseconds of the server's clock; the clock of leases; ID, record, time of the last beat and of the first
-- one for each host; number and entry for each router. Or the word 'full'.
--
-- farm: 'clock', 'seen' and 'grace', and for each host 'h:ID' -> 'end of its lease, last beat, first beat'. Leases end by
-- 'clock': it goes as the server's does, but no further than half a lease from one call to the next. So nobody's lease
-- ends while the server is away, and a server's clock that is set forward or back ends none. After half a lease without
-- a call all hosts are given a whole one again, but not soon after the last time.
local call, match, floor, max, min = redis.call, string.match, math.floor, math.max, math.min
local hosts, routers, farm = KEYS[1], KEYS[2], KEYS[3]
local what, me, record, lease, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local HIGHEST = 4503599627370496 -- of an epoch or a time; what is higher is damaged

local function text(number) return string.format('%.0f', number) end
local function number(value)
  local found = value and match(value, '^%d+$') and tonumber(value)
  return found and found < HIGHEST and found or nil
end

-- ------------------------------------------------------------------ clock and hosts

local time = call('TIME')
local now = time[1] * 1000 + floor(time[2] / 1000)
local leases, clock, seen, grace, count = {}, nil, nil, nil, 0
local fields = call('HGETALL', farm)
for at = 1, #fields, 2 do
  local name, value = fields[at], fields[at + 1]
  local id = match(name, '^h:(.+)$')
  if name == 'clock' then clock = number(value)
  elseif name == 'seen' then seen = number(value)
  elseif name == 'grace' then grace = number(value)
  elseif id then
    local ends, last, first = match(value, '^(%d+) (%d+) (%d+)$')
    leases[id] = {number(ends) or 0, number(last) or 0, number(first) or 0}
  end
end
local passed = seen and max(0, now - seen) or 0
clock = clock and seen and clock + floor(min(passed, lease / 2)) or now
call('HSET', farm, 'clock', text(clock), 'seen', text(now))
local given = passed > lease / 2 and not (grace and grace <= clock and clock - grace < 4 * lease)
if given then call('HSET', farm, 'grace', text(clock)) end

local function drop(id)
  call('HDEL', farm, 'h:' .. id)
  call('HDEL', hosts, id)
  leases[id] = nil
end

local newest = 0
for id, one in pairs(leases) do
  if given and one[1] >= clock - lease and one[1] < clock + lease then
    one[1] = clock + lease
    call('HSET', farm, 'h:' .. id, text(one[1]) .. ' ' .. text(one[2]) .. ' ' .. text(one[3]))
  end
  if one[1] < clock or one[1] > clock + 60000 or (what == 'leave' and id == me) then
    drop(id)
  else
    newest = max(newest, one[3])
    count = count + 1
  end
end
if what == 'beat' then
  if not leases[me] then
    if count >= most then return 'full' end
    leases[me] = {0, 0, max(newest + 1, clock)}
  end
  leases[me][1], leases[me][2] = clock + lease, clock
  call('HSET', farm, 'h:' .. me, text(clock + lease) .. ' ' .. text(clock) .. ' ' .. text(leases[me][3]))
  if call('HGET', hosts, me) ~= record then call('HSET', hosts, me, record) end
end

-- ------------------------------------------------------------------ routers

local entries = {}
local function place(at, epoch, host, state, to)
  entries[at] = {epoch, host, state, to}
  call('HSET', routers, at, text(epoch) .. ' ' .. host .. ' ' .. state .. ' ' .. to)
end
local function next_epoch(one, host)
  -- The last three digits are the host's, so that no two have the same where this server has lost its last writes.
  local own = (tonumber(string.sub(host, -5), 16) or 0) % 1000
  return max(floor((one and one[1] or 0) / 1000) + 1, now) * 1000 + own
end

fields = call('HGETALL', routers)
for at = 1, #fields, 2 do
  local epoch, host, state, to = match(fields[at + 1], '^(%d+) (%S+) (%l+) (%S+)$')
  if not (number(epoch) and match(fields[at], '^%d%d?%d?$')) then
    call('HDEL', routers, fields[at])
  elseif host ~= '-' and not leases[host] then
    place(fields[at], tonumber(epoch), '-', 'starting', '-')
  else
    entries[fields[at]] = {tonumber(epoch), host, state, to}
  end
end

local after = 7 + 3 * (tonumber(ARGV[6]) or 0)
local running = {}
for at = 7, after - 1, 3 do
  local key, epoch, ready, one = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2] == '1', entries[ARGV[at]]
  if not one or one[1] < epoch or (one[1] == epoch and one[2] == '-') then
    place(key, epoch, me, 'starting', '-') -- it ran out, or this server has lost what it was told
  end
  running[key] = ready and entries[key][1] == epoch
end
for key, one in pairs(entries) do
  local state = running[key] and 'ready' or 'starting'
  if what == 'beat' and one[2] == me and one[3] ~= 'giving' and one[3] ~= state then place(key, one[1], me, state, '-') end
end

-- ------------------------------------------------------------------ actions

local function others_move(at)
  for other, one in pairs(entries) do
    if other ~= at and (one[3] == 'giving' or (one[3] == 'starting' and one[2] ~= '-' and one[2] ~= me)) then
      return true
    end
  end
  return false
end

for at = after, #ARGV, 4 do
  local action, key, epoch, to = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local one = entries[key]
  local mine = one and one[1] == epoch and one[2] == me
  if action == 'take' then
    if not one or one[2] == '-' then place(key, next_epoch(one, me), me, 'starting', '-') end
  elseif action == 'give' then
    if mine and one[3] ~= 'giving' and (to == '-' or (leases[to] and to ~= me and not others_move(key))) then
      place(key, epoch, me, 'giving', to)
    end
  elseif mine then -- gave
    local host = leases[to] and to or '-'
    place(key, next_epoch(one, host), host, 'starting', '-')
  end
end

-- ------------------------------------------------------------------ answer

local members, places = {}, {}
fields = call('HGETALL', hosts)
for at = 1, #fields, 2 do
  local one = leases[fields[at]]
  if one then
    for _, part in ipairs({fields[at], fields[at + 1], text(one[2]), text(one[3])}) do members[#members + 1] = part end
  else
    call('HDEL', hosts, fields[at])
  end
end
for at, one in pairs(entries) do
  places[#places + 1] = at
  places[#places + 1] = text(one[1]) .. ' ' .. one[2] .. ' ' .. one[3] .. ' ' .. one[4]
end
return {text(now), text(clock), members, places}
