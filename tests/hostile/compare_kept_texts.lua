-- Comparing two texts that the system keeps is one instruction, and would take twice a slice.
-- expect: refused script.cpu two texts of more than
local a, b = ("\0"):rep(15000000) .. "a", ("\0"):rep(14999999) .. "b"

return function()
  while true do
    local _ = a < b
  end
end
