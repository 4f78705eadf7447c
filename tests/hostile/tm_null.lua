-- null and the mark of arrays are the host's: shared by all.
-- expect: completed false false
return function()
  local tm = require "tidemill"
  local function try(v) return (pcall(setmetatable, v, {})) end
  local mark = getmetatable(tm.array {})
  return tostring(try(tm.null)) .. " " .. tostring(type(mark) == "table" and pcall(function()
    mark.__index = function() while true do end end
  end))
end
