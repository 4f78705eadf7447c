-- Byte values that are long texts: one call of C reads gigabytes.
-- expect: failed script.cpu attack.lua:6
return function()
  local texts, text = {}, (" "):rep(1500000) .. "65"
  for i = 1, 1900 do texts[i] = text end
  while true do string.char(table.unpack(texts)) end
end
