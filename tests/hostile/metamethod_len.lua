-- __len that asks for the length.
-- expect: failed script.error overflow
return function()
  local t = setmetatable({}, { __len = function(t) return #t end })
  return #t
end
