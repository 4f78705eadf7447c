-- Running out of memory, caught, without letting go.
-- expect: failed script.cpu|script.memory
return function()
  local t = {}
  while true do
    pcall(function() while true do t[#t + 1] = {} end end)
  end
end
