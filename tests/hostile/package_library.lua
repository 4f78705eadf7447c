-- package would reach what the host itself has loaded.
-- expect: failed script.error package is not available
return function()
  return package.loaded
end
