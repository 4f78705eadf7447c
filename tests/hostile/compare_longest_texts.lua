-- Comparing the longest texts that there may be two of: one instruction, at the end of a slice.
-- expect: failed script.cpu longest texts
local a, b = ("\0"):rep(3500000) .. "a", ("\0"):rep(3500000) .. "b"

return function()
  local n = 0
  while true do
    for _ = 1, 400 do n = n + 1 end
    local _ = a < b
  end
end
