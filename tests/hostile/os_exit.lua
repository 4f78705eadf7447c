-- os.exit would end the host.
-- expect: failed script.error os.exit is not available
return function()
  os.exit(1)
end
