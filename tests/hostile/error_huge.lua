-- A message of a megabyte.
-- expect: failed script.error xxxxxx
return function()
  error(("x"):rep(1 << 20), 0)
end
