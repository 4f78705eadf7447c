-- The same in messages and fields that go to the log.
-- expect: completed
return function(ctx)
  ctx:log("x\n2026-11-22 ERROR forged\r\0\27[2J\255")
  ctx:log("error", "\n", { ["a\nb"] = "\r\n", ["\0"] = "\0" })
end
