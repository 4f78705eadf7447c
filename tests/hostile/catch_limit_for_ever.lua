-- Whoever catches goes on, and is caught by the next one.
-- expect: failed script.cpu
return function()
  local function spin() while true do end end
  local function stubborn(n)
    while true do
      if n > 0 then pcall(stubborn, n - 1) else pcall(spin) end
    end
  end
  stubborn(100)
end
