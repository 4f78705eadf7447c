-- More values than the stack holds.
-- expect: failed script.error too many results
return function()
  return select("#", table.unpack({}, 1, 1 << 30))
end
