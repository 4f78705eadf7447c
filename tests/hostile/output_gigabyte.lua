-- A reply of a gigabyte, out of one text in many places.
-- expect: failed step.output 8 MiB
return function()
  local t, s = {}, ("x"):rep(1000000)
  for i = 1, 1000 do t[i] = s end
  return t
end
