-- Another string.format for everybody.
-- expect: failed script.error cannot be set
return function()
  string.format = function() return "mine" end
end
