--- What `tidemill` shows of the JSON answers on a terminal: one function per view.
---
--- A view gets the decoded answer and { columns, colour } and returns text that ends with a line
--- feed. Lists come newest first; a transcript and the steps are shown in the order they happened.
local json = require "host.json"
local text = require "tidemill.cli.text"
local waiting = require "tidemill.cli.waiting"

local M = {}

local views = {}

--- A member for people: "" for what is absent.
local function show(value)
  if value == nil or value == json.null then return "" end
  return text.clean(value)
end

local function given(value)
  return value ~= nil and value ~= json.null and value ~= ""
end

local function is_table(value)
  return type(value) == "table" and value ~= json.null
end

local function list(value)
  return is_table(value) and value or {}
end

--- Any value on one line; the parts of a table as JSON.
local function inline(value)
  if not is_table(value) then return show(value) end
  return text.clean(json.encode(value) or "")
end

local function oldest_first(items)
  local out = {}
  for i = #items, 1, -1 do out[#out + 1] = items[i] end
  return out
end

--- The line that says how to see what did not fit on the page.
local function more(answer)
  if not given(answer.next) then return "" end
  return "more: --cursor " .. show(answer.next) .. "\n"
end

local function none(what)
  return "no " .. what .. "\n"
end

local function listed(answer, what, add, to)
  local items, lines = list(answer.items), {}
  if #items == 0 then return none(what) .. more(answer) end
  for _, item in ipairs(items) do add(lines, item, to) end
  return table.concat(lines, "\n") .. "\n" .. more(answer)
end

local function in_table(items, what, heads, row, to)
  local rows = {}
  for i, item in ipairs(items) do rows[i] = row(item) end
  return #rows > 0 and text.table(heads, rows, to.columns, to.colour) or none(what)
end

-- What is loaded

function views.systems(answer, to)
  local heads = { "SYSTEM", "VERSION", "FLOWS", "DESCRIPTION" }
  return in_table(list(answer.items), "systems", heads, function(system)
    return { show(system.name), show(system.version):sub(1, 12), tostring(#list(system.flows)),
      show(system.description) }
  end, to)
end

--- What a reload changed, a line each.
function views.reload(answer, to)
  local lines = {}
  for _, system in ipairs(list(answer.systems)) do
    local name, version = show(system.name), show(system.version)
    if not given(system.previous) then
      lines[#lines + 1] = ("%s  %s  new"):format(name, version)
    elseif system.previous ~= system.version then
      lines[#lines + 1] = ("%s  %s  was %s"):format(name, version, show(system.previous))
    end
  end
  for _, name in ipairs(list(answer.removed)) do lines[#lines + 1] = show(name) .. "  removed" end
  if #lines == 0 then return "nothing changed: the scripts are those that were loaded\n" end
  for i, line in ipairs(lines) do lines[i] = text.block(line, to.columns, "") end
  return table.concat(lines, "\n") .. "\n"
end

function views.flows(answer, to)
  local heads = { "FLOW", "PATTERN", "DESCRIPTION" }
  return in_table(list(answer.items), "flows", heads, function(flow)
    return { show(flow.system) .. "/" .. show(flow.flow_id), show(flow.pattern),
      show(flow.description) }
  end, to)
end

--- One setting to a line, as --set takes it, with its origin behind.
function views.config(answer, to)
  local lines = {}
  for _, item in ipairs(list(answer.items)) do
    local setting = ("%s = %s"):format(show(item.key), inline(item.value))
    local block = text.wrap(("%s  (%s)"):format(setting, show(item.origin)), to.columns - 4)
    lines[#lines + 1] = table.concat(block, "\n    ")
  end
  return table.concat(lines, "\n") .. "\n"
end

-- Findings: lines for people and editors, never wrapped

local LEVEL_COLOURS = { error = "red", warning = "yellow" }

local function counted(n, word)
  return ("%d %s%s"):format(n, word, n == 1 and "" or "s")
end

function views.check(answer, to)
  local lines = {}
  for _, item in ipairs(list(answer.items)) do
    local level = show(item.level)
    local place = show(item.file)
    if given(item.line) and item.line ~= 0 then place = place .. ":" .. show(item.line) end
    lines[#lines + 1] = ("%s: %s: %s [%s]"):format(place,
      text.paint(LEVEL_COLOURS[level] or "bold", level, to.colour),
      (show(item.text):gsub("\n", " ")), show(item.rule))
  end
  lines[#lines + 1] = ("%s, %s, %s"):format(counted(answer.systems or 1, "system"),
    counted(answer.errors or 0, "error"), counted(answer.warnings or 0, "warning"))
  return table.concat(lines, "\n") .. "\n"
end

-- Conversations

--- What a fork goes on from.
local function origin(from)
  return ("%s at revision %s"):format(show(from.conversation_id), show(from.revision))
end

local function add_conversation(lines, item, to)
  local id, stands = show(item.conversation_id), show(item.status)
  if given(item.current_step) then stands = stands .. "  " .. show(item.current_step) end
  local fits = text.width(id) + 2 + text.width(stands) <= to.columns
  lines[#lines + 1] = text.paint("bold", id, to.colour)
    .. (fits and "  " .. stands or "\n" .. text.block(stands, to.columns, "    "))
  local about = ("%s, %s/%s, session %s"):format(text.time(item.created), show(item.system),
    show(item.flow_id), show(item.session_id))
  if is_table(item.forked_from) then about = about .. ", fork of " .. origin(item.forked_from) end
  lines[#lines + 1] = text.paint("dim", text.block(about, to.columns, "    "), to.colour)
end

function views.conversations(answer, to)
  return listed(answer, "conversations", add_conversation, to)
end

local TIMES = { created = true, updated = true, last_activity = true, ended = true }
local ORDER = { "conversation_id", "system", "flow_id", "flow_version", "session_id", "status",
  "current_step", "revision", "created", "updated", "durable", "summary", "feedback", "usage" }

local function add_member(lines, name, value, to, width)
  if not given(value) then return end
  local shown = TIMES[name] and text.time(value) or inline(value)
  text.add_member(lines, name, shown, width or 16, to.columns, to.colour)
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

local function add_state(lines, state, to)
  if next(state) == nil then return end
  lines[#lines + 1] = text.paint("bold", "state", to.colour)
  for _, name in ipairs(sorted_keys(state)) do
    lines[#lines + 1] = text.block(("%s = %s"):format(show(name), inline(state[name])), to.columns,
      "  ")
  end
end

local function add_error(lines, fault, to)
  if not is_table(fault) then return end
  local line = ("%s [%s]"):format(show(fault.message), show(fault.code))
  if given(fault.step_id) then line = show(fault.step_id) .. ": " .. line end
  lines[#lines + 1] = text.paint("red", text.block(line, to.columns, ""), to.colour)
end

function views.conversation(answer, to)
  local lines = {}
  for _, name in ipairs(ORDER) do add_member(lines, name, answer[name], to) end
  if is_table(answer.forked_from) then
    add_member(lines, "forked_from", origin(answer.forked_from), to)
  end
  if is_table(answer.prompt) then add_member(lines, "prompt", answer.prompt.text, to) end
  for name, shown in waiting.members(answer, to.now) do add_member(lines, name, shown, to) end
  add_error(lines, answer.error, to)
  add_state(lines, list(answer.state), to)
  return table.concat(lines, "\n") .. "\n"
end

-- Sessions

--- One line where the id and what it does fit, the rest below.
local function add_session(lines, item, to)
  local id, stands = show(item.session_id), show(item.status)
  local open = item.open_conversations
  if math.type(open) == "integer" and open > 0 then
    stands = ("%s, %s"):format(stands, counted(open, "open conversation"))
  end
  local fits = text.width(id) + 2 + text.width(stands) <= to.columns
  lines[#lines + 1] = fits and text.paint("bold", id, to.colour) .. "  " .. stands
    or text.paint("bold", text.block(id, to.columns, ""), to.colour) .. "\n"
      .. text.block(stands, to.columns, "    ")
  local about = ("%s, last active %s"):format(text.time(item.created),
    text.time(item.last_activity))
  if given(item.user_id) then about = about .. ", user " .. show(item.user_id) end
  lines[#lines + 1] = text.paint("dim", text.block(about, to.columns, "    "), to.colour)
end

function views.sessions(answer, to)
  return listed(answer, "sessions", add_session, to)
end

local SESSION = { "session_id", "status", "user_id", "unreadable", "open_conversations", "created",
  "last_activity", "ended", "metadata" }

function views.session(answer, to)
  local lines = {}
  for _, name in ipairs(SESSION) do
    add_member(lines, name, answer[name], to, 18)
  end
  return table.concat(lines, "\n") .. "\n"
end

-- Events that were not delivered

local function add_event(lines, item, to)
  local stands = item.status == "dead" and "given up " .. text.time(item.dead_at)
    or given(item.next_at) and "next attempt " .. text.time(item.next_at)
    or "behind an older one"
  lines[#lines + 1] = text.paint("bold", text.block(show(item.id), to.columns, ""), to.colour)
  lines[#lines + 1] = text.block(("%s, %s, %s"):format(given(item.event) and show(item.event)
    or "unreadable", counted(item.attempts or 0, "attempt"), stands), to.columns, "    ")
  if given(item.last_error) then
    lines[#lines + 1] = text.paint("red", text.block(show(item.last_error), to.columns, "    "),
      to.colour)
  end
end

function views.event(answer, to)
  local lines = {}
  add_event(lines, answer, to)
  return table.concat(lines, "\n") .. "\n"
end

function views.outbox(answer, to)
  return listed(answer, "events", add_event, to)
end

function views.purge(answer)
  local how = answer.dry_run == true and "would be removed" or "removed"
  local whose = given(answer.tenant) and (" of tenant %s"):format(show(answer.tenant)) or ""
  local line = ("%s%s: %s, %s"):format(how, whose,
    counted(answer.conversations or 0, "conversation"), counted(answer.sessions or 0, "session"))
  local versions, ended = answer.versions or 0, answer.sessions_ended or 0
  if (answer.events or 0) ~= 0 then
    line = line .. (", %s that were %s"):format(counted(answer.events, "event"),
      whose == "" and "given up" or "not delivered")
  end
  if versions ~= 0 then
    line = line .. (", the sources of %s"):format(counted(versions, "version"))
  end
  if ended ~= 0 then
    line = line .. ("\n%s: %s that nobody used"):format(
      answer.dry_run == true and "would be ended" or "ended", counted(ended, "session"))
  end
  if answer.store_stays == true then line = line .. "\nits own store is empty and stays" end
  return line .. "\n"
end

local function step_row(step)
  local status, attempt = show(step.status), given(step.attempt) and step.attempt or 1
  if attempt > 1 then status = ("%s (attempt %s)"):format(status, show(attempt)) end
  if given(step.undoes) then status = ("%s, undo of %s"):format(status, show(step.undoes)) end
  if step.undone == true then status = status .. ", undone" end
  if is_table(step.error) then
    status = ("%s: %s [%s]"):format(status, show(step.error.message), show(step.error.code))
  end
  if is_table(step.review) and given(step.review.reason) then
    status = ("%s; %s: %s"):format(status, show(step.review.agent), show(step.review.reason))
  end
  local flow = given(step.flow) and show(step.flow) .. "/" or ""
  local id = (given(step.branch) and show(step.branch) .. "/" or "") .. show(step.step_id)
  return { show(step.seq), flow .. id, show(step.type), show(step.agent),
    text.took(step.start, step["end"]), status }
end

function views.steps(answer, to)
  local heads = { "SEQ", "STEP", "TYPE", "AGENT", "TOOK", "STATUS" }
  return in_table(oldest_first(list(answer.items)), "steps", heads, step_row, to) .. more(answer)
end

function views.checkpoints(answer, to)
  local heads = { "CHECKPOINT", "NAME", "REVISION", "STEP", "CREATED" }
  return in_table(list(answer.items), "checkpoints", heads, function(item)
    return { show(item.checkpoint_id), show(item.name), show(item.revision),
      show(item.step_id or item.current_step), text.time(item.created) }
  end, to) .. more(answer)
end

-- The transcript

local function add_reply(lines, reply, to)
  local who = show(reply.agent)
  if given(reply.provider) then who = ("%s (%s)"):format(who, show(reply.provider)) end
  lines[#lines + 1] = text.paint("bold", who, to.colour)
  lines[#lines + 1] = text.block(show(reply.text), to.columns, "  ")
end

local function add_prompt(lines, prompt, to)
  if given(prompt.hint) then
    local hint = text.block(show(prompt.hint), to.columns, "")
    lines[#lines + 1] = text.paint("yellow", hint, to.colour)
  end
  if given(prompt.text) then
    lines[#lines + 1] = text.paint("bold", text.block(show(prompt.text), to.columns, ""), to.colour)
  end
end

local function add_options(lines, schema, to)
  for i, option in ipairs(list(schema.options)) do
    local label = type(option) == "table" and option.label or option
    local number = ("%3d) "):format(i)
    local block = text.block(show(label), to.columns, "     ")
    lines[#lines + 1] = number .. block:sub(6)
  end
  if given(schema.placeholder) then
    lines[#lines + 1] = text.paint("dim", text.block(show(schema.placeholder), to.columns, "  "),
      to.colour)
  end
end

function views.messages(answer, to)
  local items, lines = oldest_first(list(answer.items)), {}
  if #items == 0 then return none "messages" end
  for _, message in ipairs(items) do
    if message.role == "agent" then
      add_reply(lines, message, to)
    elseif message.role == "prompt" or message.role == "note" then
      add_prompt(lines, message, to)
    else
      lines[#lines + 1] = "> " .. text.block(show(message.text), to.columns, "  "):sub(3)
    end
  end
  return table.concat(lines, "\n") .. "\n" .. more(answer)
end

-- Chat

local ENDS = {
  completed = "The conversation is completed.",
  failed = "The conversation has failed.",
  expired = "The conversation has expired: nobody answered in time.",
  cancelled = "The conversation was cancelled.",
  paused = "The conversation is paused.",
}

local function add_replies(lines, turn, to)
  for _, reply in ipairs(list(turn.replies)) do
    add_reply(lines, reply, to)
    lines[#lines + 1] = ""
  end
end

function views.replies(turn, to)
  local lines = {}
  add_replies(lines, turn, to)
  return #lines > 0 and table.concat(lines, "\n") .. "\n" or ""
end

--- What a plain answer is an answer to: of a structured input its next field.
local function asked(schema)
  for _, field in ipairs(list(schema.fields)) do
    if field.name == schema.next then return field end
  end
  return schema
end

function views.turn(turn, to)
  local lines = {}
  if turn.dry_run == true then
    local line = "Nothing was stored. It would go from version %s to %s, and on from here:"
    lines[1] = text.block(line:format(show(turn.from_version), show(turn.flow_version)),
      to.columns, "")
  end
  add_replies(lines, turn, to)
  if is_table(turn.prompt) then
    add_prompt(lines, turn.prompt, to)
    add_options(lines, asked(list(turn.prompt.input_schema)), to)
  elseif is_table(turn.waiting_for) then
    lines[#lines + 1] = text.block(waiting.sentence(turn.waiting_for), to.columns, "")
  else
    local status = show(turn.status)
    lines[#lines + 1] = ENDS[status]
      or ("The conversation takes no answer now: it is %s."):format(status)
  end
  return table.concat(lines, "\n") .. "\n"
end

--- The first turn of a new conversation, whose id is needed to go on with it.
function views.fork(turn, to)
  return show(turn.conversation_id) .. "\n" .. views.turn(turn, to)
end

--- What became of the conversations of a system.
function views.migrate(answer, to)
  local lines, dry = {}, answer.dry_run == true
  for _, item in ipairs(list(answer.items)) do
    local what = given(item.code) and ("stays: %s [%s]"):format(show(item.message), show(item.code))
      or dry and "would go" or "went"
    lines[#lines + 1] = text.block(("%s  at %s  %s"):format(show(item.conversation_id),
      show(item.current_step), what), to.columns, "")
  end
  lines[#lines + 1] = ("version %s: %d %s, %d %s"):format(show(answer.version),
    answer.migrated or 0, dry and "would go there" or "went there", answer.refused or 0,
    dry and "would stay behind" or "stayed behind")
  return table.concat(lines, "\n") .. "\n"
end

---@param view string
---@param answer any the decoded JSON
---@param columns integer
---@param colour boolean
---@param now integer? ms since 1970
---@return string
function M.render(view, answer, columns, colour, now)
  local render = views[view]
  if not render then error(("there is no view '%s'"):format(text.clean(view)), 2) end
  if type(answer) ~= "table" then error("a view shows a JSON object", 2) end
  return render(answer, { columns = math.max(columns or 80, 20), colour = colour, now = now })
end

return M
