-- rawset into a library.
-- expect: failed script.error
return function()
  rawset(string, "format", error)
end
