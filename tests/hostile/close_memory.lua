-- When memory is short, __close takes more.
-- expect: failed script.cpu|script.memory
return function()
  local t = {}
  local _ <close> = setmetatable({}, { __close = function()
    while true do t[#t + 1] = {} end
  end })
  while true do t[#t + 1] = {} end
end
