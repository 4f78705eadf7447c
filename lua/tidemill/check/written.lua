--- Which functions of a source write variables that they do not declare: upvalues.
---
--- A scanner of Lua 5.4 that follows scopes and nothing else. It is given what Lua has compiled, so
--- it need not see mistakes; it knows nothing about systems.
local M = {}

---@class tidemill.WritingFunction
---@field first integer lines, as Lua's own debug information has them
---@field last integer
---@field writes { name: string, line: integer }[] in the order of the source
---@field up tidemill.WritingFunction?

-- Tokens

local KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat "
  .. "return then true until while"):gmatch "%a+" do
  KEYWORDS[word] = true
end
local LITERALS = { ["nil"] = true, ["true"] = true, ["false"] = true, ["..."] = true, number = true,
  string = true }

--- Behind a text in quotes that begins at `at`.
local function behind_quotes(source, at)
  local stop = "[\\" .. source:sub(at, at) .. "]"
  at = source:find(stop, at + 1)
  while source:sub(at, at) == "\\" do at = source:find(stop, at + 2) end
  return at + 1
end

--- Behind a long bracket that begins at `at`, or nil: there is none.
local function behind_brackets(source, at)
  local level = source:match("^%[(=*)%[", at)
  if not level then return nil end
  local _, last = source:find("]" .. level .. "]", at, true)
  return last + 1
end

local function behind_number(source, at)
  local digits, exponent = "^[%d.]*", "^[eE][+-]?%d+"
  if source:find("^0[xX]", at) then
    at, digits, exponent = at + 2, "^[%x.]*", "^[pP][+-]?%d+"
  end
  local _, last = source:find(digits, at)
  local _, further = source:find(exponent, last + 1)
  return (further or last) + 1
end

local function behind_comment(source, at)
  return behind_brackets(source, at + 2) or source:find("\n", at, true) or #source + 1
end

--- The kind of the token at `at`, and where the next begins; no kind: nothing that counts.
local function token(source, at)
  local _, last = source:find("^%s+", at)
  if last then return nil, last + 1 end
  _, last = source:find("^[%a_][%w_]*", at)
  if last then
    local word = source:sub(at, last)
    return KEYWORDS[word] and word or "name", last + 1
  end
  if source:find("^%-%-", at) then return nil, behind_comment(source, at) end
  if source:find("^[\"']", at) then return "string", behind_quotes(source, at) end
  if source:find("^%.?%d", at) then return "number", behind_number(source, at) end
  local long = behind_brackets(source, at)
  if long then return "string", long end
  local sign = source:match("^%.%.%.", at) or source:match("^[=~<>]=", at)
    or source:match("^//", at) or source:match("^::", at) or source:match("^<<", at)
    or source:match("^>>", at) or source:match("^%.%.", at) or source:sub(at, at)
  return sign, at + #sign
end


-- Scopes

---@class tidemill.Token
---@field kind string
---@field text string
---@field line integer where it ends

---@class tidemill.Scan
---@field source string
---@field behind integer what has not been looked at begins here, in this line:
---@field feeds integer
---@field here tidemill.Token
---@field ahead tidemill.Token
---@field functions tidemill.WritingFunction[]
---@field current table the function that is being read
---@field owners table<string, table[]> of each name: the functions that declare it, innermost last
---@field blocks string[][] names that the open blocks declare
local Scan = {}
Scan.__index = Scan

function Scan:read()
  while self.behind <= #self.source do
    local at = self.behind
    local kind, behind = token(self.source, at)
    local text = self.source:sub(at, behind - 1)
    local _, feeds = text:gsub("\n", "")
    self.behind, self.feeds = behind, self.feeds + feeds
    if kind then return { kind = kind, text = text, line = self.feeds } end
  end
  return { kind = "end of file", text = "", line = self.feeds }
end

function Scan:kind() return self.here.kind end

function Scan:take(kind)
  local taken = self.here
  if kind and taken.kind ~= kind then
    error(("%s expected at line %d, not %s"):format(kind, taken.line, taken.kind))
  end
  self.here, self.ahead = self.ahead, self:read()
  return taken
end

--- Takes it if it is there.
function Scan:skip(kind)
  return self.here.kind == kind and self:take() ~= nil
end

function Scan:declare(name)
  local owners = self.owners[name] or {}
  self.owners[name] = owners
  owners[#owners + 1] = self.current
  local block = self.blocks[#self.blocks]
  block[#block + 1] = name
end

function Scan:open() self.blocks[#self.blocks + 1] = {} end

function Scan:close()
  for _, name in ipairs(table.remove(self.blocks)) do table.remove(self.owners[name]) end
end

--- All functions between the variable and the place where it is written keep it as an upvalue.
function Scan:write(name, line)
  local owners = self.owners[name]
  local owner = owners and owners[#owners]
  local fn = owner and self.current
  while fn and fn ~= owner do
    fn.writes[#fn.writes + 1] = { name = name, line = line }
    fn = fn.up
  end
end

-- Expressions

local BINARY, UNARY = {}, { ["not"] = true, ["-"] = true, ["#"] = true, ["~"] = true }
for sign in ("+ - * / // ^ % & ~ | >> << .. < <= > >= == ~= and or"):gmatch "%S+" do
  BINARY[sign] = true
end

function Scan:list()
  repeat self:expression() until not self:skip ","
end

function Scan:table()
  self:take "{"
  while not self:skip "}" do
    if self:skip "[" then
      self:expression()
      self:take "]"
      self:take "="
    elseif self:kind() == "name" and self.ahead.kind == "=" then
      self:take()
      self:take()
    end
    self:expression()
    if not self:skip "," then self:skip ";" end
  end
end

--- From the parenthesis on; `first` is the line that Lua gives the function.
function Scan:body(first, is_method)
  local fn = { first = first, writes = {}, up = self.current }
  self.functions[#self.functions + 1] = fn
  self.current = fn
  self:open()
  if is_method then self:declare "self" end
  self:take "("
  while not self:skip ")" do
    local parameter = self:take()
    if parameter.kind == "name" then self:declare(parameter.text) end
  end
  self:statements()
  fn.last = self:take("end").line
  self:close()
  self.current = fn.up
end

--- What is called with `f"text"`, `f{…}` or `f(…)`; false: it is not called.
function Scan:arguments()
  if self:kind() == "{" then
    self:table()
  elseif self:skip "(" then
    if not self:skip ")" then
      self:list()
      self:take ")"
    end
  elseif not self:skip "string" then
    return false
  end
  return true
end

--- The token of a name that stands alone: it may be written.
function Scan:suffixed()
  local alone = self:take()
  if alone.kind == "(" then
    self:expression()
    self:take ")"
  elseif alone.kind ~= "name" then
    error(("an expression expected at line %d, not %s"):format(alone.line, alone.kind))
  end
  if alone.kind == "(" then alone = nil end
  while true do
    if self:skip "." then
      self:take "name"
    elseif self:skip "[" then
      self:expression()
      self:take "]"
    elseif self:skip ":" then
      self:take "name"
      self:arguments()
    elseif not self:arguments() then
      return alone
    end
    alone = nil
  end
end

function Scan:expression()
  repeat
    while UNARY[self:kind()] do self:take() end
    if LITERALS[self:kind()] then
      self:take()
    elseif self:kind() == "{" then
      self:table()
    elseif self:skip "function" then
      self:body(self.here.line)
    else
      self:suffixed()
    end
    local goes_on = BINARY[self:kind()]
    if goes_on then self:take() end
  until not goes_on
end

-- Statements

local statements = {} ---@type table<string, fun(scan: tidemill.Scan, line: integer?)>

function Scan:block()
  self:open()
  self:statements()
  self:close()
end

statements["do"] = function(scan)
  scan:block()
  scan:take "end"
end

statements["while"] = function(scan)
  scan:expression()
  scan:take "do"
  statements["do"](scan)
end

--- The condition sees what the block declares.
statements["repeat"] = function(scan)
  scan:open()
  scan:statements()
  scan:take "until"
  scan:expression()
  scan:close()
end

statements["if"] = function(scan)
  repeat
    scan:expression()
    scan:take "then"
    scan:block()
  until not scan:skip "elseif"
  if scan:skip "else" then scan:block() end
  scan:take "end"
end

statements["for"] = function(scan)
  local names = {}
  repeat names[#names + 1] = scan:take("name").text until not scan:skip ","
  if not scan:skip "=" then scan:take "in" end
  scan:list()
  scan:take "do"
  scan:open()
  for _, name in ipairs(names) do scan:declare(name) end
  statements["do"](scan)
  scan:close()
end

statements["function"] = function(scan, first)
  local name = scan:take "name"
  local is_field, is_method = false, false
  while scan:kind() == "." or scan:kind() == ":" do
    is_field, is_method = true, scan:take().kind == ":"
    scan:take "name"
  end
  if not is_field then scan:write(name.text, name.line) end
  scan:body(first, is_method)
end

statements["local"] = function(scan)
  if scan:skip "function" then
    scan:declare(scan:take("name").text)
    scan:body(scan.here.line)
    return
  end
  local names = {}
  repeat
    names[#names + 1] = scan:take("name").text
    if scan:skip "<" then
      scan:take "name"
      scan:take ">"
    end
  until not scan:skip ","
  if scan:skip "=" then scan:list() end
  for _, name in ipairs(names) do scan:declare(name) end
end

statements["goto"] = function(scan) scan:take "name" end

statements["break"] = function() end

statements[";"] = statements["break"]

statements["::"] = function(scan)
  scan:take "name"
  scan:take "::"
end

local ENDS = { ["end"] = true, ["else"] = true, ["elseif"] = true, ["until"] = true,
  ["end of file"] = true }

statements["return"] = function(scan)
  if not ENDS[scan:kind()] and scan:kind() ~= ";" then scan:list() end
end

--- A call, or values for variables.
function Scan:call_or_assignment()
  local targets = {}
  repeat targets[#targets + 1] = self:suffixed() or false until not self:skip ","
  if not self:skip "=" then return end
  self:list()
  for _, target in ipairs(targets) do
    if target then self:write(target.text, target.line) end
  end
end

function Scan:statements()
  while not ENDS[self:kind()] do
    local statement = statements[self:kind()]
    if statement then
      statement(self, self:take().line)
    else
      self:call_or_assignment()
    end
  end
end

---The functions of a source, each with what it writes beyond itself.
---@param source string a file that Lua has compiled
---@return tidemill.WritingFunction[]
function M.functions(source)
  local main = { writes = {} }
  source = source:gsub("^\239\187\191", ""):gsub("\r\n?", "\n") -- as it was compiled
  local scan = setmetatable({ source = source, behind = 1, feeds = 1,
    functions = {}, current = main, owners = {}, blocks = {} }, Scan)
  scan.here, scan.ahead = scan:read(), scan:read()
  scan:block()
  scan:take "end of file"
  return scan.functions
end

return M
