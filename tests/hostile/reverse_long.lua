-- Long texts turned, lowered and raised for ever: each call is C.
-- expect: failed script.cpu attack.lua:5
return function()
  local s = ("aB"):rep(400000)
  while true do s:reverse():lower():upper() end
end
