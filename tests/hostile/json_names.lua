-- A table of very many names as JSON, which puts them in order; it is made while the system loads.
-- expect: failed script.cpu
local NAMES = {}
for i = 1, 110000 do NAMES["a common beginning " .. i * 7919 % 1000003] = i end

return function(ctx)
  local list = {}
  for i = 1, 8 do list[i] = NAMES end
  return ctx:http { url = ctx.session.metadata.silent, method = "POST", json = list }
end
