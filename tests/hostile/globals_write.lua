-- A new global after load.
-- expect: failed script.error cannot be set after load
return function()
  leaked = "secret"
end
