-- A script's own code may look like the host's; it is still the script's failed step.
-- expect: failed conversation.not_found
return function()
  error { code = "conversation.not_found", message = "gone", status = "not_found", turn = true }
end
