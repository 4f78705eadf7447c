-- A list of many fractions as JSON: each takes as long as a hundred instructions.
-- expect: failed script.cpu
local FRACTIONS = {}
for i = 1, 350000 do FRACTIONS[i] = i / 7 * 1e-200 end

return function(ctx)
  return ctx:http { url = ctx.session.metadata.silent, method = "POST", json = FRACTIONS }
end
