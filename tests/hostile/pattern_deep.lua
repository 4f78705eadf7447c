-- A pattern that nests deeper than the C stack may.
-- expect: failed script.error too complex
return function()
  return (("a"):rep(500000)):match(("(a?)"):rep(30) .. ("a?"):rep(300000))
end
