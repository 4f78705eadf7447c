-- __tostring that gives no text.
-- expect: failed script.error must return a string
return function()
  return tostring(setmetatable({}, { __tostring = function() return {} end }))
end
