-- Captures and back references, tried in all combinations.
-- expect: failed script.cpu attack.lua:4
return function()
  return (("a"):rep(2000)):find("(.-)(.-)(.-)%1%2%3%1x")
end
