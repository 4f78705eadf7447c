-- rawset of a frozen global.
-- expect: failed script.error
shared = { 1 }
return function()
  rawset(shared, 1, "leaked")
end
