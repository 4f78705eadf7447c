-- The same through a text.
-- expect: failed script.error
return function()
  local s = "x"
  s.y = 1
end
