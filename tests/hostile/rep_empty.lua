-- The empty text, an exabyte of times: no memory, but all the time there is.
-- expect: completed 0
return function()
  return #(""):rep(1000000000000000000)
end
