-- A variable whose __close never returns.
-- expect: failed script.cpu attack.lua:5
return function()
  local _ <close> = setmetatable({}, { __close = function()
    while true do end
  end })
end
