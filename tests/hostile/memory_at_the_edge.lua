-- All memory but a little is kept; then a turn fails, and its record must be written nonetheless.
-- expect: failed script.cpu|script.memory
return function()
  local t = {}
  pcall(function() while true do t[#t + 1] = ("x"):rep(1000) .. #t end end)
  error("at the edge " .. #t)
end
