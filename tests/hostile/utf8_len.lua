-- utf8 over a long text, again and again, in C.
-- expect: failed script.cpu attack.lua:5
return function()
  local s = ("ä"):rep(500000)
  while true do utf8.len(s) end
end
