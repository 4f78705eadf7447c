-- Comparing texts of NUL bytes, where each byte costs a call of strcoll.
-- expect: failed script.cpu
return function()
  local nuls = ("\0"):rep(250 * 1024)
  local a, b = nuls .. "a", nuls .. "b"
  while true do
    local _ = a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b, a < b
  end
end
