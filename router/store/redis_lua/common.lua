-- What all scripts begin with. ARGV[1] is the time in unix seconds, ARGV[2] GRACE_S of redis_rows.py.
-- Numbers of 8 bytes are read as two of 4, for Lua's are doubles; two times, and times against each other, may lose
-- their last bits far beyond any date.
local call, unpack, pack = redis.call, struct.unpack, struct.pack
local sub, byte, find, floor = string.sub, string.byte, string.find, math.floor
local HALF = 4294967296
local args = ARGV
local now, grace = tonumber(args[1]), tonumber(args[2])

local function number_at(value, at)
  local high, low = unpack('>I4I4', value, at)
  return high * HALF + low
end
