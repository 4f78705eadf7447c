-- os.execute would run anything.
-- expect: failed script.error os.execute is not available
return function()
  os.execute("true")
end
