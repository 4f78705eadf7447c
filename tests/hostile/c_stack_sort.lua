-- Recursion through table.sort.
-- expect: failed script.error overflow
return function()
  local function f() table.sort({ 1, 2 }, f) end
  f()
end
