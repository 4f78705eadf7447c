-- The largest of texts that are long and many: one call of C reads gigabytes.
-- expect: failed script.cpu attack.lua:6
return function()
  local texts, text = {}, (" "):rep(1500000) .. "1"
  for i = 1, 1900 do texts[i] = text end
  while true do math.max(table.unpack(texts)) end
end
