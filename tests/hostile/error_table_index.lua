-- An error that invents every field it is asked for.
-- expect: failed script.error
return function()
  error(setmetatable({}, { __index = function() while true do end end }))
end
