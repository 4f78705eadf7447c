-- Line breaks, NUL, escapes and broken UTF-8, to forge lines of the log.
-- expect: failed script.error
return function()
  error("x\n2026-11-22 ERROR forged\r\0\27[2J\255\254\7", 0)
end
