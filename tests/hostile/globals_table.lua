-- _G is not there: no table of all globals.
-- expect: failed script.error _G is not available
return function()
  _G.leaked = "secret"
end
