-- A long text as JSON, of which each byte takes six there, again and again.
-- expect: failed script.cpu
local LONG = ("\1"):rep(8 * 1000 * 1000)

return function(ctx)
  local request = { url = ctx.session.metadata.silent, method = "POST", json = { LONG } }
  while true do pcall(ctx.http, ctx, request) end
end
