-- Long texts that are equal but not the same, compared byte by byte.
-- expect: failed script.cpu attack.lua:6
return function()
  local a, b = ("xy"):rep(500000), ("xy"):rep(500000)
  while true do
    if a ~= b then return "never" end
  end
end
