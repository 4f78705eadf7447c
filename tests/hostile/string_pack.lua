-- string.pack with sizes that overflow.
-- expect: failed script.error string.pack is not available
return function()
  return ("!16i16"):pack(1)
end
