-- One batch of the owner of partitions. KEYS[1]: the fence of the first of them.
-- ARGV: 3 number of the batch ('': it only reads), 4 number of the router, 5 to 8 limits of inboxes, then for each
-- partition '@', the beginning of its keys, the owner's token, a ceiling of sequences or '', how many of its arguments
-- follow, and these: operations with their arguments.
-- Returns: the puts that found no room, by number; device, slot and version of each item that gave its place; the
-- partitions that are another's, by place; whether the server has no memory left; the answers in order.
--
-- A server that has none refuses what enlarges, and only as long as a script has not written anything. So the number of
-- the batch is written first: if that is refused, nothing else that enlarges is tried, while removals and reads are.
local batch, router = args[3], tonumber(args[4])
local limit, limit_bytes, crowd, large = tonumber(args[5]), tonumber(args[6]), tonumber(args[7]), tonumber(args[8])
local refused, evicted, others, answers = {}, {}, {}, {}
local marked, full = batch == '', false
local at, last, puts, place, base, inbox = 9, #args, 0, -1, '', ''

while at <= last do
  local kind = args[at]
  if kind == 'p' then -- put: device, slot, item, life
    puts = puts + 1
    if not full then
      local key, slot, item, life = inbox .. args[at + 1], args[at + 2], args[at + 3], args[at + 4]
      local size = call('HLEN', key)
      local room, gone = make_room(key, slot, item, size, limit, limit_bytes, crowd, large, evicted, args[at + 1])
      if room then
        call('HSET', key, slot, item)
        if size == gone then
          call('SADD', base .. 'full', args[at + 1])
          if life ~= '0' then call('EXPIRE', key, life) end
        elseif life == '0' then
          call('PERSIST', key)
        else
          call('EXPIRE', key, life, 'GT')
        end
      else
        refused[#refused + 1] = puts
      end
    end
    at = at + 5
  elseif kind == 'D' then -- remove: device, slot
    call('HDEL', inbox .. args[at + 1], args[at + 2])
    at = at + 3
  elseif kind == 'd' then -- remove: device, slot, version at most
    local key, slot = inbox .. args[at + 1], args[at + 2]
    local item = call('HGET', key, slot)
    if item then
      local high, low = unpack('>I4I4', item)
      local most, rest = unpack('>I4I4', args[at + 3])
      if high < most or (high == most and low <= rest) then call('HDEL', key, slot) end
    end
    at = at + 4
  elseif kind == 'i' then -- read an inbox: device, how many, 0: all
    local most = tonumber(args[at + 2])
    local key = inbox .. args[at + 1]
    answers[#answers + 1] = most > 0 and first_items(key, most) or call('HGETALL', key)
    at = at + 3
  elseif kind == 'g' then -- read a record: name
    answers[#answers + 1] = call('GET', base .. args[at + 1])
    at = at + 2
  elseif kind == '@' then
    place, base = place + 1, args[at + 1]
    inbox = base .. 'i:'
    if call('HGET', base .. 'fence', 't') ~= args[at + 2] then
      others[#others + 1] = place
      at = at + tonumber(args[at + 4])
    else
      if not marked then
        local done = redis.pcall('HSET', base .. 'fence', 'b', batch)
        if type(done) == 'table' and done.err then
          if not find(done.err, 'OOM', 1, true) then return done end
          full = true
        end
        marked = true
      end
      if args[at + 3] ~= '' and not full then call('HSET', base .. 'fence', 'q', args[at + 3]) end
    end
    at = at + 5
  elseif kind == 's' then -- write a record: name, value, life
    if not full then save_record(base .. args[at + 1], '', args[at + 2], args[at + 3]) end
    at = at + 4
  elseif kind == 'k' then -- the same with the expiry that is stored: name, value
    if not full then
      local stored = call('GETRANGE', base .. args[at + 1], 0, 7)
      if stored ~= '' then save_record(base .. args[at + 1], stored, args[at + 2], '') end
    end
    at = at + 3
  elseif kind == 'x' then -- delete a record: name
    call('DEL', base .. args[at + 1])
    at = at + 2
  elseif kind == 'n' then -- renew a record: name, expiry, before, life
    if not full then
      local key = base .. args[at + 1]
      local stored = call('GETRANGE', key, 0, 7)
      if stored ~= '' then
        local expires, before_it = number_at(stored, 1), tonumber(args[at + 3])
        if now < expires and expires < before_it then
          call('SETRANGE', key, 0, args[at + 2])
          if args[at + 4] == '0' then call('PERSIST', key) else call('EXPIRE', key, args[at + 4]) end
        end
      end
    end
    at = at + 5
  elseif kind == 'c' then -- change a record: what, name and four more
    local other = args[at + 4]
    if args[at + 1] == 'take' then other = base .. other end
    answers[#answers + 1] = not full
      and change_record(args[at + 1], base .. args[at + 2], args[at + 3], other, args[at + 5], args[at + 6])
    at = at + 7
  elseif kind == 'a' then -- append to a log: channel, event, '1' if the offset is its own, offset, limits
    answers[#answers + 1] = not full and write_log(base, args[at + 1], router, args[at + 2], 0, args[at + 3] == '1',
      tonumber(args[at + 4]), tonumber(args[at + 5]), tonumber(args[at + 6]))
    at = at + 7
  elseif kind == 'e' then -- end of a log: channel, time
    answers[#answers + 1] = not full and write_log(base, args[at + 1], router, nil, tonumber(args[at + 2]))
    at = at + 3
  elseif kind == 'l' then -- read a log: channel, kind of position, three of it, how many bytes
    local position, b = tonumber(args[at + 2]), args[at + 4]
    if position == 2 then b = tonumber(b) end
    answers[#answers + 1] = read_log(base, args[at + 1], position, tonumber(args[at + 3]), b, args[at + 5],
      tonumber(args[at + 6]))
    at = at + 7
  elseif kind == 'z' then -- how much a log holds: channel
    answers[#answers + 1] = log_size(base, args[at + 1])
    at = at + 2
  else
    return redis.error_reply('ERR no operation ' .. kind)
  end
end
return {refused, evicted, others, full and 1 or 0, answers}
