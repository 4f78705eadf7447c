-- io is not there.
-- expect: failed script.error io is not available
return function()
  return io.open("/etc/passwd"):read("a")
end
