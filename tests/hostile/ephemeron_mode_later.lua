-- The mode is set when the metatable is in place already.
-- expect: completed strong
return function()
  local meta = {}
  local t = setmetatable({}, meta)
  meta.__mode = "v"
  t[1] = {}
  for i = 1, 100000 do local _ = { i } end
  return t[1] and "strong" or "weak"
end
