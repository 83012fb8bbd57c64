-- Who owns partitions. KEYS[1]: the fence of the first. ARGV: 1 and 2 as everywhere, 3 what is to be done, then its
-- arguments; a beginning is that of the keys of a partition. Leases end by the server's clock, in milliseconds.
--
-- The end of the lease of all partitions of one call stands in the fence of the first, which is renewed for all of
-- them; the fences of the others hold the name of that one instead. It counts as long as it has the same holder.
--
-- A holder that is a placement has its number behind a colon, and the placement with the highest one is to have the
-- partition: if it finds another holder, it leaves its name in the fence, and the other one cannot renew any more. One
-- that is older than a holder there has been gets nothing.
--
-- A fence says which layout the keys of its partition have (`LAYOUT` of redis_keys.py); where it says nothing that is the
-- first. A partition with a newer one than this release knows is not touched. One with an older one is brought up to
-- date as it is acquired: `migrations[n]` makes layout n + 1 of layout n. It is given the beginning of the partition's
-- keys, and reaches what can be named from there, such as the inboxes of `full`; where that is not enough, the scripts
-- have to read both forms, and it is left out. A server that is killed has all of it or nothing, as of every script; but
-- what fails keeps what it has done, unmarked, so that a migration may be made twice.
--
-- look: holder, lease, layout, then for each partition the epoch that the holder has ('': none) and its beginning. A partition
--   is free if it was never owned, or has the holder's name or epoch, or its lease has run out; but not for a placement
--   that is older than its holder, or than one that has left its name. Returns: the time; and if one is not free the
--   holder that it has, and for how long; or if one is of a newer layout, that.
-- acquire: holder, lease, layout, a new epoch's number and nonce, number of the connection, run, router; then likewise
--   for each partition. With the holder's epoch it is resumed. If one is not free, nothing is acquired. Returns: the time, and
--   token and ceiling of each; or as `look`.
-- renew: lease, then an epoch and a beginning for each. Returns: the time, and the places of those that have another
--   epoch; or of all of them, if a newer placement has left its name.
-- release: holder of the next owner or '', how long it is kept for it, then likewise.
local time = call('TIME')
local clock = time[1] * 1000 + floor(time[2] / 1000)
local EPOCH = '^(%d+:[^:]*):'
local migrations = {}

local function epoch_of(token)
  return token and string.match(token, EPOCH)
end

-- Whether a placement is newer than another one.
local function newer(holder, other)
  local a, b = holder and string.match(holder, ':(%d+)$'), other and string.match(other, ':(%d+)$')
  if not a or not b then return false end
  return #a > #b or (#a == #b and a > b)
end

local function ends_at(until_then, holder)
  local at = tonumber(until_then)
  if at or not until_then then return at or 0 end
  local first = redis.pcall('HMGET', until_then, 'h', 'u') -- not to be read where it was copied into a cluster
  return first[1] == holder and tonumber(first[2]) or 0
end

local what, from = args[3], 6
if what == 'look' then from = 7 elseif what == 'acquire' then from = 12 elseif what == 'renew' then from = 5 end

if what == 'look' or what == 'acquire' then
  local holder, lease, layout, number = args[4], tonumber(args[5]), tonumber(args[6]), tonumber(args[7])
  local found = {}
  for at = from, #args, 2 do
    local fence = call('HMGET', args[at + 1] .. 'fence', 't', 'h', 'u', 'q', 'r', 'l', 'w', 'v')
    local epoch = epoch_of(fence[1])
    local stored = epoch and (tonumber(fence[8]) or 1) or layout
    if stored > layout then return {clock, stored} end
    found[at] = {fence, epoch, stored}
  end
  for at = from, #args, 2 do
    local fence, epoch = found[at][1], found[at][2]
    for _, other in ipairs({fence[2], fence[7]}) do
      if newer(other, holder) then return {clock, other, lease} end
    end
    if epoch then
      if epoch ~= args[at] and fence[2] ~= holder then
        local ends = ends_at(fence[3], fence[2])
        if ends > clock then
          if newer(holder, fence[2]) then
            -- where the end of the lease is
            call('HSET', tonumber(fence[3]) and args[at + 1] .. 'fence' or fence[3], 'w', holder)
          end
          return {clock, fence[2], ends - clock}
        end
      end
      if what == 'acquire' then number = math.max(number, tonumber(string.match(epoch, '^%d+')) + 1) end
    end
  end
  local answer = {clock}
  if what == 'look' then return answer end
  local nonce, connection, run, router = args[8], args[9], args[10], tonumber(args[11])
  for at = from, #args, 2 do
    local key, fence, epoch = args[at + 1] .. 'fence', found[at][1], found[at][2]
    if args[at] == '' or epoch ~= args[at] then epoch = string.format('%.0f:%s', number, nonce) end
    local token = epoch .. ':' .. connection
    for version = found[at][3], layout - 1 do
      if migrations[version] then migrations[version](args[at + 1]) end
    end
    call('HSET', key, 't', token, 'h', holder, 'u', at == from and clock + lease or KEYS[1], 'v', layout)
    if fence[7] then call('HDEL', key, 'w') end
    if fence[5] ~= run then
      local first = tonumber(fence[6]) or 0
      first = math.max(floor(first / 512) + 1, number) * 512 + router
      call('HSET', key, 'r', run, 'g', first, 'l', first)
    end
    answer[#answer + 1] = token
    answer[#answer + 1] = fence[4] or '0'
  end
  return answer
end

local answer, wanted = {clock}, false
for at = from, #args, 2 do
  local fence = args[at + 1] .. 'fence'
  local there = call('HMGET', fence, 't', 'u', 'h', 'w')
  if at == from then wanted = what == 'renew' and newer(there[4], there[3]) end
  if wanted or epoch_of(there[1]) ~= args[at] then
    answer[#answer + 1] = (at - from) / 2
  elseif what == 'release' then
    call('HSET', fence, 't', string.match(args[at], '^%d+') .. '::', 'u', args[4] == '' and 0 or clock + tonumber(args[5]))
    if args[4] ~= '' then call('HSET', fence, 'h', args[4]) end
  elseif at == from then
    call('HSET', fence, 'u', clock + tonumber(args[4]))
  elseif there[2] ~= KEYS[1] then
    call('HSET', fence, 'u', KEYS[1])
  end
end
return answer
