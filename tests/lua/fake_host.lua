--- A host in Lua, for specs of whole turns: one conversation, a journal in memory that encodes what
--- it is given as the real one does, a clock that stands still, an outside that a spec scripts.
--- json, text and crypto are the real C modules.
require "tests.lua.helper"
local json = require "host.json"

local Host = {}
Host.__index = Host

local current ---@type table the host whose spec runs

local modules = {}

local function copy(value)
  if value == nil then return nil end
  return json.decode(assert(json.encode(value)))
end

local PARTS = { "steps", "messages", "state", "runtime", "prompt", "error", "events" }

--- A row: what the draft says at this moment, read back from JSON.
local function row_of(kind, draft)
  local row = { kind = kind, status = draft.status, step = draft.step, wake_at = draft.wake_at,
    checkpoint = draft.checkpoint, checkpoint_name = draft.checkpoint_name,
    in_memory = draft.in_memory, compress = draft.compress, seal = draft.seal }
  for _, part in ipairs(PARTS) do
    if draft[part] ~= nil then
      local text, err = json.encode(draft[part])
      if not text then return nil, err end
      row[part] = json.decode(text)
    end
  end
  return row
end

local function operation(kind, work)
  current.last_id = current.last_id + 1
  local op = { id = current.last_id, kind = kind, work = work }
  current.pending[#current.pending + 1] = op
  return op.id
end

--- As the real one: it takes one row at a time, and a cancelled operation leaves its row going on.
local ROWS = { begin = true, call = true }

local function check_idle()
  for _, op in ipairs(current.pending) do
    assert(not ROWS[op.kind], "journal.busy: the row before is not durable yet")
  end
end

--- What every row changes in the record.
local function take_over(row)
  local record = current.record
  record.state, record.runtime = row.state, row.runtime
  record.step, record.wake_at = row.step, row.wake_at
  record.status = row.status
  current.rows[#current.rows + 1] = row
end

modules.journal = {
  begin = function(_, draft)
    check_idle()
    local row, err = row_of("begin", draft)
    if not row then return nil, err end
    return operation("begin", function()
      if current.begin_error then return "failed", current.begin_error end
      take_over(row)
      current.record.status, current.calls = "active", {}
      current.unfinished = current.running
      return "done"
    end)
  end,
  call = function(_, key, result)
    check_idle()
    local kept = copy(result)
    return operation("call", function()
      current.calls[key] = kept
      current.rows[#current.rows + 1] = { kind = "call", key = key, result = kept }
      return "done"
    end)
  end,
  messages = function(_, cursor)
    local rows, size = #current.rows, current.page_size or 200
    return operation("messages", function()
      if current.messages_error then return "failed", current.messages_error end
      local all, items = {}, json.array {}
      for i = 1, rows do
        for _, message in ipairs(current.rows[i].messages or {}) do all[#all + 1] = message end
      end
      local last = tonumber(cursor) or #all
      for i = last, math.max(1, last - size + 1), -1 do items[#items + 1] = all[i] end
      local behind = last - #items
      return "done", json.encode { items = items,
        next = behind > 0 and tostring(behind) or json.null }
    end)
  end,
  commit = function(_, draft)
    check_idle()
    local row, err = row_of("turn", draft)
    if not row then return nil, err end
    take_over(row)
    current.unfinished, current.calls, current.ended = nil, {}, row
    return true
  end,
  undone = function(_, draft, err)
    local row, problem = row_of("undone", draft)
    if not row then return nil, problem end
    row.refused = err
    current.rows[#current.rows + 1] = row
    current.unfinished, current.calls, current.ended = nil, {}, row
    return true
  end,
  rollback = function(_, steps)
    current.ended = { kind = "rollback", back = steps }
    return true
  end,
  trail = function(_, step_ids, command)
    current.ended = { kind = "trail", steps = copy(step_ids), command = copy(command) }
    return true
  end,
  suspend = function(_, draft)
    check_idle()
    local row, err = row_of("suspend", draft)
    if not row then return nil, err end
    take_over(row)
    current.record.status, current.calls = "active", {}
    current.unfinished, current.ended = current.running, row
    return true
  end,
  fail = function(_, err)
    current.ended = { kind = "fail", error = err }
    return true
  end,
}

modules.http = {
  request = function(request)
    current.requests[#current.requests + 1] = request
    local id = operation("http", function()
      local answer, err = current.outside(request)
      if answer then return "done", answer end
      return "failed", err
    end)
    current.pending[#current.pending].url = request.url
    return id
  end,
}

modules.timer = {
  start = function(ms)
    return operation("timer", function()
      current.now = current.now + ms
      return "done"
    end)
  end,
}

modules.op = {
  cancel = function(id)
    for i, op in ipairs(current.pending) do
      if op.id == id then
        op.orphan = ROWS[op.kind]
        if not op.orphan then table.remove(current.pending, i) end
        current.cancelled = current.cancelled + 1
        return true
      end
    end
    return false
  end,
}

modules.clock = {
  now = function() return current.now end,
  monotonic = function() return current.now end,
}
modules.usage = { read = function() return current.used() end }
modules.config = { get = function() return copy(current.config) end }
modules.log = {
  write = function(level, message, fields)
    current.logs[#current.logs + 1] = { level = level, message = message, fields = fields }
  end,
}
modules.file = {
  read = function(path)
    local found = current.files[path]
    if type(found) == "table" then return nil, found end
    if found then return current.files[path], "@scripts/shop/" .. path end
    return nil, { code = "file.not_found", message = path }
  end,
}

for name, module in pairs(modules) do package.loaded["host." .. name] = module end

local task = require "tidemill.task"

---A host with one system, "shop", made of the given files. `config` is that of host.config.
---@param files table<string, string>|string a text is init.lua
---@param config table?
function Host.new(files, config)
  if type(files) == "string" then files = { ["init.lua"] = files } end
  current = setmetatable({
    files = files, config = config or {}, now = 1000000, last_id = 0, pending = {}, rows = {},
    requests = {}, logs = {}, calls = {}, cancelled = 0, record = { status = "active", step = "" },
    used = function() return 0, 0, 0 end,
    outside = function() return { status = 200, headers = {}, body = "" } end,
  }, Host)
  return current
end

---Loads the system; returns its description, decoded.
function Host.load()
  return json.decode(task.dispatch(0, "load", "shop"))
end

--- Runs pending operations until none is left, or `stop(op)` says that the host dies before it.
--- They end in the order in which they began, unless `pick(pending)` says which one is next.
function Host:pump(stop)
  while self.pending[1] do
    local position = self.pick and self.pick(self.pending) or 1
    local op = self.pending[position]
    if stop and stop(op) then return end
    table.remove(self.pending, position)
    local event, value = op.work()
    if not op.orphan then task.dispatch(op.id, event, table.unpack { value }) end
  end
end

--- What was done since the last answer to one of the steps, as host/journal/trail.c finds it.
function Host:trail(ids)
  local wanted, first, found, reached = {}, nil, false, false
  local trail = { steps = json.array {}, calls = json.array {}, undone = self.undone }
  for _, id in ipairs(ids) do wanted[id] = true end
  for at = #self.rows, 1, -1 do
    local row = self.rows[at]
    if reached and row.kind == "turn" then
      trail.state = row.state
      return trail
    end
    if row.kind == "call" then table.insert(trail.calls, 1, row) end
    for i = #(row.steps or {}), 1, -1 do
      local step = row.steps[i]
      local is_answer = step.type == "user_input" and step.status == "completed" and not step.flow
      if step.corrects then
        first = math.min(first or math.huge, step.corrects)
      elseif not found and is_answer and wanted[step.step_id] then
        found, first = true, math.min(first or math.huge, step.seq)
      end
      reached = reached or found and step.seq <= first
      table.insert(trail.steps, 1, step)
    end
  end
end

---With `refuses`, { code, message }, rollbacks are refused, and trails where there is no answer.
function Host:turn(kind, given, stop, refused)
  local record = self.record
  self.last_id = self.last_id + 1
  self.turn_id, self.ended = self.last_id, nil
  self.running = kind == "resume" and self.unfinished or { input = given, kind = kind }
  task.dispatch(self.turn_id, "turn", {
    kind = kind, began_as = self.running.kind,
    conversation_id = "c1", tenant = "default", session_id = "s1", system = "shop",
    flow_id = self.flow_id or "main", version = "v1", status = record.status, step = record.step,
    revision = #self.rows, created = 1, now = self.now, input = copy(self.running.input),
    state = copy(record.state or {}), runtime = copy(record.runtime or {}),
    calls = kind == "resume" and copy(self.calls) or {}, unsealed = self.unsealed or false,
    refused = refused,
  })
  self:pump(stop)
  local asks = self.ended and self.ended.kind
  local trail = asks == "trail" and self:trail(self.ended.steps)
  if trail then
    local command = copy(self.ended.command or given)
    command.trail = trail
    return self:turn("command", command, stop)
  elseif self.refuses and (asks == "rollback" or asks == "trail") then
    return self:turn(kind, given, stop, self.refuses)
  end
  return self.ended
end

function Host:start(given, stop)
  return self:turn("start", given or { message = json.null }, stop)
end

function Host:send(value, stop)
  return self:turn("message", value, stop)
end

function Host:resume(stop)
  return self:turn("resume", nil, stop)
end

function Host:wake()
  return self:turn("wake")
end

---@param kind "command"|"approval"|"event"|"pause"|"unpause"
function Host:signal(kind, given, stop)
  return self:turn(kind, given == nil and json.null or given, stop)
end

---The host dies: what runs is forgotten, only rows stay.
function Host:crash()
  task.dispatch(self.turn_id, "cancel")
  self.pending = {}
end

---All rows' steps, or messages, in order.
---@param part "steps"|"messages"
function Host:all(part)
  local list = {}
  for _, row in ipairs(self.rows) do
    for _, item in ipairs(row[part] or {}) do list[#list + 1] = item end
  end
  return list
end

---The ids of the executed steps, failed ones with "!".
function Host:path()
  local ids = {}
  for i, step in ipairs(self:all "steps") do
    ids[i] = step.step_id .. (step.status == "failed" and "!" or "")
  end
  return table.concat(ids, " ")
end

---A system of one flow "main" with the given steps, as the text of init.lua.
---@param steps string
---@param flow string? further fields of the flow
---@param before string? code in front
---@param system string? further fields of the system
function Host.script(steps, flow, before, system)
  return ([[
local tm = require "tidemill"
local ConversationStep, AssistantAgent = tm.ConversationStep, tm.AssistantAgent
local clerk = AssistantAgent { user_id = "clerk", system_message = "You help." }
%s
return tm.system {
  agents = { clerk = clerk%s },
  flows = { tm.ConversationFlow { flow_id = "main", %s steps = { %s } } },
}]]):format(before or "", system or "", flow or "", steps)
end

return Host
