-- The limit's error runs __close, which loops as well.
-- expect: failed script.cpu
return function()
  local meta = { __close = function() while true do end end }
  local _ <close> = setmetatable({}, meta)
  local _ <close> = setmetatable({}, meta)
  while true do end
end
