-- Formats of a megabyte, for each of whose letters there is work to do.
-- expect: failed script.error at most 1000 bytes
return function()
  return #os.date(("%c"):rep(400000))
end
