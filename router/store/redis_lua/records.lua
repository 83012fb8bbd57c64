-- Records: strings of an expiry (8 bytes, 0: never) and a value. What changes by what it holds follows
-- router/store/changes.py.
local CHANGED, UNCHANGED, FULL = 0, 1, 2
local TAKEN_S = 600

-- The packed expiry and the value of a record; nothing if there is none.
local function load_record(key)
  local stored = call('GET', key)
  if not stored then return nil end
  local expires = number_at(stored, 1)
  if expires > 0 and expires <= now then return nil end
  return sub(stored, 1, 8), sub(stored, 9)
end

-- live: seconds, '0': as long as it is not deleted, '': as long as before.
local function save_record(key, expires, value, live)
  if live == '' then
    call('SET', key, expires .. value, 'KEEPTTL')
  elseif live == '0' then
    call('SET', key, expires .. value)
  else
    call('SET', key, expires .. value, 'EX', live)
  end
end

local function has_member(value, member)
  local at = find(value, member, 5, true)
  while at and (at - 5) % 16 ~= 0 do at = find(value, member, at + 1, true) end
  return at
end

local function change_record(kind, key, a, b, c, d)
  local expires, value = load_record(key)
  if kind == 'add' then -- member, head, expiry, life, and `most` before the head
    local most, head = tonumber(sub(b, 5)), sub(b, 1, 4)
    local there = value and has_member(value, a)
    local members = value and math.max(0, floor((#value - 4) / 16)) or 0
    if not there and members >= most then return FULL end
    local rest = value and sub(value, 5, 4 + members * 16) or ''
    save_record(key, c, there and head .. rest or head .. rest .. a, d)
    return there and UNCHANGED or CHANGED
  end
  if kind == 'remove' then
    local at = value and has_member(value, a)
    if not at then return UNCHANGED end
    save_record(key, expires, sub(value, 1, at - 1) .. sub(value, at + 16), '')
    return CHANGED
  end
  if kind == 'take' then -- taker, the key for what was taken
    if value then
      local ends = number_at(expires, 1)
      if ends == 0 or ends > now + TAKEN_S then ends = now + TAKEN_S end
      call('DEL', key)
      save_record(b, pack('>I4I4', floor(ends / HALF), ends % HALF), a .. value, ends - now + grace)
      return {CHANGED, value}
    end
    local _, kept = load_record(b)
    if kept and sub(kept, 1, 16) == a then return {CHANGED, sub(kept, 17)} end
    return UNCHANGED
  end
  if kind == 'absent' and value then return UNCHANGED end
  if kind == 'newer' and value then
    -- Shorter ones than 8 bytes are as in Python: what is there decides, and then the shorter is less.
    local one, other = sub(value, 1, 8), sub(b, 1, 8)
    if one == other then return UNCHANGED end
    for i = 1, 8 do
      local x, y = byte(one, i), byte(other, i)
      if not x then break end
      if x > y then return UNCHANGED end
      if x < y then break end
    end
  end
  if c == '' then
    if not value then return UNCHANGED end
    c = expires
  end
  if a == '' then call('DEL', key) else save_record(key, c, b, d) end
  return CHANGED
end
