-- string.rep of what only looks like a text.
-- expect: failed script.error
return function()
  local fake = setmetatable({}, { __tostring = function() return "" end,
    __len = function() return 0 end })
  return string.rep(fake, 1 << 40)
end
