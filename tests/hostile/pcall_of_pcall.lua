-- Only C functions call each other here.
-- expect: failed script.cpu attack.lua:4
return function()
  while true do pcall(pcall, pcall, pcall, error) end
end
