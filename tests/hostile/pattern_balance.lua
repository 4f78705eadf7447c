-- %b scans to the end from each of many openings, again and again.
-- expect: failed script.cpu attack.lua:5
return function()
  local s = ("("):rep(200000)
  return s:find("%b()%b()"), s:find("%b()x")
end
