-- A chain of __call, each of which adds an argument.
-- expect: failed script.cpu|script.memory
return function()
  local t = {}
  setmetatable(t, { __call = t })
  return t()
end
