-- Protected calls within protected calls.
-- expect: failed script.memory
return function()
  local function f() pcall(f) pcall(f) end
  f()
end
