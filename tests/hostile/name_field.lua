-- __name is shown in messages: it may be no text, or a long one with control characters.
-- expect: failed script.error
return function()
  local t = setmetatable({}, { __name = ("\27[31m\n\0"):rep(50000) })
  return ("x"):rep(t)
end
