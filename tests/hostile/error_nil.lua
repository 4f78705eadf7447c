-- An error that is nothing.
-- expect: failed script.error a nil was raised
return function()
  error()
end
