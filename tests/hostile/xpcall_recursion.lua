-- Handlers that protect calls whose handlers do.
-- expect: failed script.cpu
return function()
  local function f() return xpcall(error, f) end
  while true do f() end
end
