-- Inboxes: hashes of slot -> item. The head of an item: version, sequence, expiry (8 bytes each), urgency, has a body.
local ITEM_HEAD = 26

-- Whether there is room for an item in an inbox of this size, and how many others have gone for it: `given` gets the
-- device, the slot and the version of each.
-- The rules are those of router/store/memory.py.
local function make_room(key, slot, item, size, limit, limit_bytes, crowd, large, given, device)
  local urgency, length = byte(item, 25), #item - ITEM_HEAD
  if urgency == 0 then
    if size < limit then return true, 0 end
    local all, alive = call('HGETALL', key), 0
    for i = 1, #all, 2 do
      if number_at(all[i + 1], 17) > now then
        if all[i] == slot then return true, 0 end
        alive = alive + 1
      end
    end
    return alive < limit, 0
  end
  if size < crowd and length <= large then return true, 0 end
  local all, alive, count, total, candidates = call('HGETALL', key), 0, 1, length, {}
  for i = 1, #all, 2 do
    local other = all[i + 1]
    if number_at(other, 17) > now then
      alive = alive + 1
      if all[i] ~= slot then
        count = count + 1
        total = total + #other - ITEM_HEAD
        local worth = byte(other, 25)
        if worth >= 1 and worth <= urgency then
          local high, low = unpack('>I4I4', other, 9)
          candidates[#candidates + 1] = {all[i], worth, high, low, #other - ITEM_HEAD, sub(other, 1, 8)}
        end
      end
    end
  end
  if alive < crowd and length <= large then return true, 0 end
  table.sort(candidates, function(one, other)
    for i = 2, 4 do
      if one[i] ~= other[i] then return one[i] < other[i] end
    end
    return one[1] < other[1]
  end)
  local gone = 0
  while (count > limit or total > limit_bytes) and gone < #candidates do
    gone = gone + 1
    count = count - 1
    total = total - candidates[gone][5]
  end
  if count > limit or total > limit_bytes then return false, 0 end
  for i = 1, gone do
    local candidate, at = candidates[i], #given
    call('HDEL', key, candidate[1])
    given[at + 1], given[at + 2], given[at + 3] = device, candidate[1], candidate[6]
  end
  return true, gone
end

-- Bytes in their order, whatever language the server collates in.
local function before(one, other)
  local shorter = math.min(#one, #other)
  for i = 1, shorter do
    local a, b = byte(one, i), byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end
local PLAIN = 'B' < 'a' and 'Z' < '\195'

-- The first items by slot, those that have expired left out; all of them, those too, where there are not more.
local function first_items(key, most)
  local all = call('HGETALL', key)
  if #all <= 2 * most then return all end
  local slots, values = {}, {}
  for i = 1, #all, 2 do
    if number_at(all[i + 1], 17) > now then
      slots[#slots + 1] = all[i]
      values[all[i]] = all[i + 1]
    end
  end
  if PLAIN then table.sort(slots) else table.sort(slots, before) end
  local found = {}
  for i = 1, math.min(most, #slots) do
    found[2 * i - 1], found[2 * i] = slots[i], values[slots[i]]
  end
  return found
end
