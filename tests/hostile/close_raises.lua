-- Hundreds of __close that raise, each replacing the error of the one before.
-- expect: failed script.error
return function()
  local function f(n)
    local _ <close> = setmetatable({}, { __close = function(_, e) error(tostring(e) .. "x") end })
    if n > 0 then f(n - 1) end
    error("first", 0)
  end
  f(150)
end
