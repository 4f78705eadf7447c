-- Far offsets over continuation bytes.
-- expect: failed script.cpu
return function()
  local s = "a" .. ("\128"):rep(1000000)
  while true do utf8.offset(s, 2) end
end
