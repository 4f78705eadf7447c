-- Full collections, one after the other.
-- expect: failed script.error only collectgarbage
return function()
  while true do collectgarbage() end
end
