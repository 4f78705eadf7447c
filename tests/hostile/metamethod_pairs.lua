-- __pairs that gives an iterator without end.
-- expect: failed script.cpu
return function()
  local t = setmetatable({}, { __pairs = function()
    return function(_, k) return (k or 0) + 1 end
  end })
  for _ in pairs(t) do end
end
