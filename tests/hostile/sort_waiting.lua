-- A call to the outside from within the sort, where nothing can wait.
-- expect: failed script.error cannot wait here
return function(ctx)
  table.sort({ 1, 2 }, function() return ctx:http { url = "http://127.0.0.1:1/" } end)
end
