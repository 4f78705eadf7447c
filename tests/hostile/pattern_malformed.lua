-- Patterns that end in the middle: the matcher must not read on.
-- expect: completed 8 refused
return function()
  local refused = 0
  for _, pattern in ipairs { "%", "[", "[^", "[a-", "%b", "%bx", "%f", "(" } do
    if not pcall(string.find, "abc\0def", pattern) then refused = refused + 1 end
  end
  return refused .. " refused"
end
