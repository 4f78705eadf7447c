-- select over long lists, quadratic in C.
-- expect: failed script.cpu
return function()
  local list = {}
  for i = 1, 200 do list[i] = i end
  local function sum(...)
    local s = 0
    for i = 1, select("#", ...) do s = s + select(i, ...) end
    return s
  end
  while true do sum(table.unpack(list)) end
end
