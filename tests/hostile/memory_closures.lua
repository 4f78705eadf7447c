-- Closures that hold each other.
-- expect: failed script.cpu|script.memory
return function()
  local last
  while true do
    local before = last
    last = function() return before end
  end
end
