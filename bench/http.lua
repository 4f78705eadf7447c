-- luacheck: globals init request done wrk
-- wrk script: one answer to each of the conversations in turn; counts what is not a 200.
local ids, at = {}, 0

function init(args)
  for id in io.lines(args[1]) do ids[#ids + 1] = id end
  at = math.random(#ids)
end

function request()
  at = at % #ids + 1
  return wrk.format("POST", "/v1/conversations/" .. ids[at] .. "/messages",
    { ["Content-Type"] = "application/json" },
    ('{"input":"a note of some forty characters, no. %d"}'):format(math.random(1e9)))
end

function done(summary)
  local e = summary.errors
  io.write(("http: %.0f turns/s, %d errors\n"):format(summary.requests / summary.duration * 1e6,
    e.status + e.connect + e.read + e.write + e.timeout))
end
