--- The types that a variable of a flow may be declared with: does a value of state have the type?
local json = require "host.json"

---@type table<string, fun(value: any): boolean>
return {
  text = function(v) return type(v) == "string" end,
  number = function(v) return type(v) == "number" end,
  integer = function(v) return math.type(v) == "integer" end,
  boolean = function(v) return type(v) == "boolean" end,
  list = function(v)
    return type(v) == "table" and (json.is_array(v) or #v > 0 or next(v) == nil)
  end,
  object = function(v) return type(v) == "table" and not json.is_array(v) and #v == 0 end,
}
