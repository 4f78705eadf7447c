-- More output than limits.output.
-- expect: failed step.too_large 65536
return function()
  return ("x"):rep(70000)
end
