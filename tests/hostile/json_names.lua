-- Tables of very many names as JSON, which puts them in order; made while the system loads.
-- expect: failed script.cpu|json.too_large
local function names(from)
  local t = {}
  for i = from, from + 14000 do t["a common beginning " .. i * 7919 % 1000003] = i end
  return t
end
local NAMES = { names(0), names(20000), names(40000), names(60000) }

return function(ctx)
  local list = {}
  for i = 1, 16 do list[i] = NAMES end
  return ctx:http { url = ctx.session.metadata.silent, method = "POST", json = list }
end
