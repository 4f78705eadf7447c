--- Notes which error codes and rules the specs really provoke, in the file that $TIDEMILL_PROVOKED
--- names, if any. The codes of C are noted by tests/provoke.c.
local path = os.getenv("TIDEMILL_PROVOKED")
if not path then return end

local function note(what)
  local file <close> = assert(io.open(path, "a"))
  assert(file:write(what, "\n"))
end

local fault = require "tidemill.fault"
local new = fault.new
function fault.new(code, ...)
  note(code)
  return new(code, ...)
end

local Findings = getmetatable(require "tidemill.origin".findings()).__index
local add = Findings.add
function Findings:add(source, message, rule, ...)
  note("[" .. rule .. "]")
  return add(self, source, message, rule, ...)
end
