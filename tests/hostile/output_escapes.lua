-- Every byte of the output takes six as JSON.
-- expect: failed step.too_large 65536
return function()
  return ("\1"):rep(60000)
end
