-- Thousands of short texts that lie together in Lua's table of texts: releasing them takes long.
-- expect: refused script.cpu attack.lua
local tm = require "tidemill"
local PLACES = 1 << 12 -- of a table that a text and a number are put into: `next` tells their order
local function step(h, b) return (h ~ ((h << 5) + (h >> 2) + b)) & 0xffffffff end
local function digest(seed, s)
  local h = (seed ~ #s) & 0xffffffff
  for i = #s, 1, -1 do h = step(h, s:byte(i)) end
  return h
end
local function empty_table()
  local t = {}
  for i = 1, PLACES do t[-i] = true end
  for i = 1, PLACES do t[-i] = nil end
  return t
end
local places = empty_table()
local function is_before(s, place)
  local key = place == 0 and PLACES - 1 or place
  places[s] = true
  places[key] = true
  local first = next(places)
  places[key], places[s] = nil, nil
  return first == s
end
local function place_of(s)
  local low, high = 0, PLACES - 1
  while low < high do
    local middle = math.min((low + high + 1) // 2, PLACES - 2)
    if middle < low then return low end
    local count = collectgarbage "count"
    local before = is_before(s, middle)
    if collectgarbage "count" < count - PLACES * 12 / 1024 then -- they met: a table of another size
      places = empty_table()
      return middle
    end
    if before then high = middle - 1 else low = middle + 1 end
  end
  return low
end
local function fits(seed, texts, seen)
  for i, s in ipairs(texts) do
    if digest(seed, s) & (PLACES - 1) ~= seen[i] then return false end
  end
  return true
end
local function find_seed()
  local seeds, bits = {}, 14
  for i = 0, (1 << bits) - 1 do seeds[i + 1] = i end
  for length = 1, 10 do
    local texts, seen, left = {}, {}, {}
    for i = 1, 8 do
      texts[i] = ("q"):rep(length - 1) .. string.char(96 + i)
      seen[i] = place_of(texts[i])
    end
    for _, seed in ipairs(seeds) do
      for high = 0, length == 1 and 0 or 3 do
        local more = seed | high << bits
        if fits(more, texts, seen) then left[#left + 1] = more end
      end
    end
    seeds, bits = left, length == 1 and bits or bits + 2
  end
  return seeds[1] or error "no seed"
end
local seed, alike, tried = find_seed(), {}, 0
local function gather(count)
  while #alike < count do
    tried = tried + 1
    local rest = ("%06x"):format(tried)
    local h = (seed ~ 8) & 0xffffffff
    for i = 6, 1, -1 do h = step(h, rest:byte(i)) end
    for b = 0, 255 do
      local g = step(h, b)
      local first = ((g ~ 12345) - (g << 5) - (g >> 2)) & (1 << 18) - 1
      if first < 256 then alike[#alike + 1] = string.char(first, b) .. rest end
    end
  end
end
gather(6000)
return function() return #alike end
