-- Long texts compared in C, one instruction each.
-- expect: failed script.cpu attack.lua:6
return function()
  local a, b = ("xy"):rep(500000) .. "a", ("xy"):rep(500000) .. "b"
  while true do
    if a > b then return "never" end
  end
end
