-- require while a conversation runs: files are read at load only.
-- expect: failed script.error
return function()
  return require("not_there")
end
