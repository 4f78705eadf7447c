-- Secrets are in the environment.
-- expect: failed script.error os.getenv is not available
return function()
  return os.getenv("PATH")
end
