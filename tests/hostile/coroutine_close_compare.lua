-- A coroutine that rests since there was nothing long is closed: its __close compares long texts.
-- expect: failed script.cpu
local a, b
local co = coroutine.create(function()
  local _ <close> = setmetatable({}, { __close = function()
    local a, b = a, b
    local _ = a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b,
      a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b
  end })
  coroutine.yield()
end)
coroutine.resume(co)
a = ("\0"):rep(1000000) .. "a"
b = ("\0"):rep(1000000) .. "b"
return function()
  coroutine.close(co)
  while true do end
end
