-- A text that doubles until memory ends.
-- expect: failed script.cpu|script.memory
return function()
  local s = "x"
  while true do s = s .. s end
end
