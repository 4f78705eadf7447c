-- The overflow is caught at each level, and tried again.
-- expect: failed script.memory
return function()
  local function f() pcall(f) f() end
  f()
end
