-- Recursion through pcall, each with arguments of its own.
-- expect: failed script.memory nested too deep
return function()
  local function f(...) return pcall(f, 1, ...) end
  return tostring(f())
end
