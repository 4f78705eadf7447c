-- Endless tail calls: no stack, no loop.
-- expect: failed script.cpu
return function()
  local function f() return f() end
  f()
end
