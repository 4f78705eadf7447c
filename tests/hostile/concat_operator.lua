-- Long texts joined by the operator: a megabyte per instruction.
-- expect: failed script.cpu attack.lua:5
return function()
  local s = ("x"):rep(1 << 20)
  while true do local _ = s .. "y" end
end
