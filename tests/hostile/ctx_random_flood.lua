-- Random numbers for ever, each a digest in C.
-- expect: failed script.cpu
return function(ctx)
  while true do ctx:random(10) end
end
