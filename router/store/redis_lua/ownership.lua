-- Who owns partitions. KEYS[1]: the fence of the first. ARGV: 1 and 2 as everywhere, 3 what is to be done, then its
-- arguments; a beginning is that of the keys of a partition. Leases end by the server's clock, in milliseconds.
--
-- acquire: holder, lease, a new epoch's number and nonce, number of the connection, run, router; then for each partition
--   the epoch that the holder has ('': none) and its beginning. A partition is free if it was never owned, or has the
--   holder's name, or its lease has run out; with the holder's epoch it is resumed. If one is not free, nothing is done.
--   Returns: token and ceiling of each; or the holder that one has, and for how long.
-- renew: lease, then a token and a beginning for each. Returns: the places of those that have another owner.
-- release: holder of the next owner or '', how long it is kept for it, then likewise.
local time = call('TIME')
local clock = time[1] * 1000 + floor(time[2] / 1000)

if args[3] == 'acquire' then
  local holder, lease, nonce, connection, run = args[4], tonumber(args[5]), args[7], args[8], args[9]
  local number, router = tonumber(args[6]), tonumber(args[10])
  local found = {}
  for at = 11, #args, 2 do
    local fence = call('HMGET', args[at + 1] .. 'fence', 't', 'h', 'u', 'q', 'r', 'l')
    local epoch = fence[1] and string.match(fence[1], '^(%d+:[^:]*):')
    if epoch then
      if epoch ~= args[at] and fence[2] ~= holder and tonumber(fence[3]) > clock then
        return {fence[2], tonumber(fence[3]) - clock}
      end
      number = math.max(number, tonumber(string.match(epoch, '^%d+')) + 1)
    end
    found[at] = {fence, epoch}
  end
  local answer = {}
  for at = 11, #args, 2 do
    local key, fence, epoch = args[at + 1] .. 'fence', found[at][1], found[at][2]
    if args[at] == '' or epoch ~= args[at] then epoch = string.format('%.0f:%s', number, nonce) end
    local token = epoch .. ':' .. connection
    call('HSET', key, 't', token, 'h', holder, 'u', clock + lease)
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

local refused, from = {}, args[3] == 'renew' and 5 or 6
for at = from, #args, 2 do
  local fence = args[at + 1] .. 'fence'
  if call('HGET', fence, 't') ~= args[at] then
    refused[#refused + 1] = (at - from) / 2
  elseif args[3] == 'renew' then
    call('HSET', fence, 'u', clock + tonumber(args[4]))
  elseif args[4] ~= '' then
    call('HSET', fence, 'h', args[4], 'u', clock + tonumber(args[5]), 't', string.match(args[at], '^%d+') .. '::')
  else
    call('HSET', fence, 'u', 0)
  end
end
return refused
