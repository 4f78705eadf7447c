-- A code that is none, and members that mean something to the host.
-- expect: failed script.error
return function()
  error { code = ("a"):rep(1000), message = "m", turn = true, fatal = true, status = "ok",
    step_id = ("s"):rep(1000), traceback = ("t"):rep(1 << 20), retryable = "maybe" }
end
