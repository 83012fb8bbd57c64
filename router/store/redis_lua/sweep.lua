-- Deletes what has expired. ARGV: 3 number of the router, 4 seconds for which a channel's position outlives its last
-- event, 5 how much may be deleted, then for each key: beginning, token, kind, name ('full': a cursor).
-- Returns: entries looked at, entries deleted, keys done, the cursor of the first that is not done.
local router, position_s, budget = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
local looked, deleted, done, at = 0, 0, 0, 6
while at <= #args and deleted < budget do
  local base, kind, name = args[at], args[at + 2], args[at + 3]
  local finished, cursor = true, '0'
  if call('HGET', base .. 'fence', 't') ~= args[at + 1] then
    -- another's by now
  elseif kind == 'i' then
    local key, all = base .. 'i:' .. name, call('HGETALL', base .. 'i:' .. name)
    for i = 1, #all, 2 do
      looked = looked + 1
      if number_at(all[i + 1], 17) <= now then
        if deleted >= budget then finished = false break end
        call('HDEL', key, all[i])
        deleted = deleted + 1
      end
    end
  elseif kind == 'r' then
    local stored = call('GETRANGE', base .. 'r:' .. name, 0, 7)
    looked = looked + 1
    if stored ~= '' then
      local expires = number_at(stored, 1)
      if expires > 0 and expires <= now then
        call('DEL', base .. 'r:' .. name)
        deleted = deleted + 1
      end
    end
  elseif kind == 'h' then
    local log, key = load_log(base, name), base .. 'l:' .. name
    if log then
      looked = looked + call('ZCARD', key)
      local dead, gone = log.till > 0 and log.till <= now, 0
      if dead then
        local events = call('ZRANGE', key, 0, budget - deleted - 1)
        for _, event in ipairs(events) do note_gone(log, event) end
        gone = #events
        if gone > 0 then call('ZREMRANGEBYRANK', key, 0, gone - 1) end
        finished = call('ZCARD', key) == 0
      else
        gone = purge(log, key, budget - deleted)
        finished = log.next > now
      end
      deleted = deleted + gone
      if finished and (dead or (log.till == 0 and log.expires <= now - position_s)) then
        forget_log(base, name, router)
      elseif gone > 0 then
        save_log(base, name, log)
      end
    end
  else
    local part = call('SSCAN', base .. 'full', name, 'COUNT', 500)
    for _, device in ipairs(part[2]) do
      if call('EXISTS', base .. 'i:' .. device) == 0 then call('SREM', base .. 'full', device) end
    end
    cursor = part[1]
    finished = cursor == '0'
  end
  if not finished then return {looked, deleted, done, cursor} end
  done, at = done + 1, at + 4
end
return {looked, deleted, done, '0'}
