-- A list that is a global, written in all ways that write.
-- expect: completed "0 times"
local tm = require "tidemill"
List = tm.array { "first" }
return function()
  local written = 0
  if pcall(function() List[2] = "told to all" end) then written = written + 1 end
  if pcall(rawset, List, 2, "told to all") then written = written + 1 end
  if pcall(table.insert, List, "told to all") then written = written + 1 end
  return written .. " times"
end
