--- Compares functions of the host's libraries with Lua's: the same results, the same messages.
--- `expect_same = twins(theirs, ours)`, then `expect_same("find", ...)`; an argument that is made
--- anew for each of the two is given as { make = function }. SEED=n repeats a run at random.
local twins = { seed = tonumber(os.getenv "SEED") or os.time(),
  rounds = os.getenv "TIDEMILL_NIGHTLY" == "1" and 20 or 1 } -- of the random cases

local function shown(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" or getmetatable(value) then return tostring(value) end
  local parts, keys = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do parts[i] = ("[%s]=%s"):format(shown(key), shown(value[key])) end
  return "{" .. table.concat(parts, " ") .. "}"
end

local function all_shown(values)
  local texts = {}
  for i = 1, values.n do texts[i] = shown(values[i]) end
  return table.concat(texts, ", ")
end

local function is_made(value)
  return type(value) == "table" and rawget(value, "make") ~= nil
end

--- Everything that a call returns and leaves in the tables that were made for it. Messages name a
--- function by some table where it is found, so the name is left out.
local function outcome(f, ...)
  local arguments, made = table.pack(...), { n = 0 }
  for i = 1, arguments.n do
    if is_made(arguments[i]) then
      arguments[i] = arguments[i].make()
      made.n = made.n + 1
      made[made.n] = arguments[i]
    end
  end
  local values = table.pack(pcall(f, table.unpack(arguments, 1, arguments.n)))
  for i = 1, values.n do
    if type(values[i]) == "string" then values[i] = values[i]:gsub("( to )'[%w_.]+'", "%1it") end
  end
  return values, made
end

local function equal(a, b)
  if a == b or (a ~= a and b ~= b) then return true end
  if type(a) ~= type(b) then return false end
  return type(a) == "function" or (type(a) == "table" and shown(a) == shown(b))
end

local function all_equal(a, b)
  if a.n ~= b.n then return false end
  for i = 1, a.n do
    if not equal(a[i], b[i]) then return false end
  end
  return true
end

local function new(_, theirs, ours)
  return function(name, ...)
    local want, want_made = outcome(theirs[name], ...)
    local got, got_made = outcome(ours[name], ...)
    if all_equal(want, got) and all_equal(want_made, got_made) then return end
    error(("SEED=%d: %s(%s)\nLua:  %s; %s\nours: %s; %s"):format(twins.seed, name,
      all_shown(table.pack(...)), all_shown(want), all_shown(want_made), all_shown(got),
      all_shown(got_made)), 2)
  end
end

return setmetatable(twins, { __call = new })
