-- More captures than there is room for.
-- expect: failed script.error too many captures
return function()
  return ("abc"):find(("()"):rep(40))
end
