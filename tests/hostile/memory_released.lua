-- Running out of memory on purpose, letting go, and again: all CPU goes to the collector.
-- expect: failed script.cpu|script.memory
return function()
  while true do
    pcall(function() local t = {} while true do t[#t + 1] = {} end end)
  end
end
