-- A definition whose __pairs never ends.
-- as: init
-- expect: refused script.invalid
return require("tidemill").system(setmetatable({}, { __pairs = function()
  return function(_, k) return (k or 0) + 1, 1 end
end }))
