-- gsub with a pattern that backtracks at every position.
-- expect: failed script.cpu attack.lua:4
return function()
  return (("ab"):rep(2000)):gsub("(.-)(.-)(.-)(.-)(.-)(.-)c", "%1")
end
