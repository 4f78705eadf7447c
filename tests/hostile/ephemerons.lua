-- A long chain of ephemerons, quadratic for the collector.
-- expect: failed script.error __mode is not available
return function()
  local chain, key = setmetatable({}, { __mode = "k" }), {}
  for _ = 1, 1e9 do
    local fresh = {}
    chain[fresh] = key
    key = fresh
  end
end
