-- The longest loop there is.
-- expect: failed script.cpu attack.lua:4
return function()
  for _ = math.mininteger, math.maxinteger do end
end
