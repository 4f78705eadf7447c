-- Long texts copied by string.sub.
-- expect: failed script.cpu attack.lua:5
return function()
  local s = ("x"):rep(1 << 20)
  while true do s:sub(2) end
end
