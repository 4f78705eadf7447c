-- Texts of NULs again, but of a few KiB only.
-- expect: failed script.cpu
return function()
  local a, b = ("\0"):rep(16000), ("\0"):rep(15999) .. "\1"
  while true do
    local _ = a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b
  end
end
