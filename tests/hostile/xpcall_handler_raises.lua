-- A handler that raises, whose handler is itself.
-- expect: completed
return function()
  local ok, e = xpcall(error, function(x) error(x) end, "x")
  return tostring(ok) .. type(e)
end
