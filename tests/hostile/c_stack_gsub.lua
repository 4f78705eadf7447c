-- Recursion through a C function: the callback of gsub.
-- expect: failed script.error overflow
return function()
  local function f() return ("x"):gsub("x", f) end
  return f()
end
