-- resume where hardly any C stack is left, and then texts and tables in place of the coroutine.
-- expect: completed survived
return function()
  local function deep(n, co)
    if n == 0 then
      coroutine.resume(co)
      return "x"
    end
    return (("x"):gsub("x", function() return deep(n - 1, co) end))
  end
  for n = 188, 196 do
    if not pcall(deep, n, coroutine.create(function() end)) then
      local keep, text = {}, ("A"):rep(176)
      for i = 1, 8000 do keep[i % 50] = { i } end
      for i = 1, 400 do keep[i] = text .. 1000000 + i end
      keep[0] = ("x"):rep(400000)
    end
  end
  return "survived"
end
