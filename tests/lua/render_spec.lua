-- What the terminal shows of the answers: nothing lost, nothing dangerous, never too wide.
package.path = "lua/?.lua;" .. package.path
package.loaded["host.json"] = package.loaded["host.json"] or {
  null = setmetatable({}, { __tostring = function() return "null" end }),
  encode = function(value)
    local parts = {}
    for i, item in ipairs(value) do parts[i] = tostring(item) end
    return "[" .. table.concat(parts, ",") .. "]"
  end,
}
local json = require "host.json"
local render = require("tidemill.cli.render").render
local text = require "tidemill.cli.text"

local function lines(s)
  local out = {}
  for line in s:gmatch("([^\n]*)\n") do out[#out + 1] = line end
  return out
end

local function widest(s)
  local most = 0
  for _, line in ipairs(lines(s)) do most = math.max(most, text.width(line)) end
  return most
end

describe("text", function()
  it("takes control characters out, so that stored text cannot steer a terminal", function()
    assert.equal("a?[2Jb?c?d", text.clean("a\27[2Jb\0c\127d"))
    assert.equal("x?31my", text.clean("x\xC2\x9B31my"))
    assert.equal("x?y", text.clean("x\xC2\x80y"))
    assert.equal("one\ntwo", text.clean("one\r\ntwo"))
    assert.equal("Äpfel – 7 €", text.clean("Äpfel – 7 €"))
    assert.equal("a?b", text.clean("a\rb"))
    assert.equal("pay ?tac eht?", text.clean("pay \u{202E}tac eht\u{202C}"))
    assert.equal("?x?", text.clean("\u{2066}x\u{2069}"))
  end)

  it("wraps by characters, splits words that are too long, keeps paragraphs", function()
    assert.same({ "ääääää öö", "üü" }, text.wrap("ääääää öö üü", 9))
    assert.same({ "abcdefgh", "ij" }, text.wrap("abcdefghij", 8))
    assert.same({ "one", "", "two" }, text.wrap("one\n\ntwo\n\n", 20))
    assert.same({ "" }, text.wrap("", 20))
    assert.same({ "a bytes \xff\xfe" }, text.wrap("a bytes \xff\xfe", 20))
  end)

  it("keeps tables within the columns without losing a character", function()
    local long = ("x"):rep(70)
    local shown = text.table({ "KEY", "VALUE" }, { { "workflow", long }, { "b", "c" } }, 40, false)
    assert.is_true(widest(shown) <= 40)
    local _, count = shown:gsub("x", "")
    assert.equal(70, count)
    assert.equal("KEY       VALUE", lines(shown)[1])
  end)

  it("measures what a terminal shows: wide characters, accents, joiners", function()
    assert.equal(5, text.width("Zoë\u{301} 7"))
    assert.equal(6, text.width("配送先"))
    assert.equal(4, text.width("📦📦"))
    assert.equal(4, text.width("สวัสดี"))
    assert.equal(2, text.width("\xff\xfe"))
    assert.same({ "配送先の", "住所" }, text.wrap("配送先の住所", 9))
    assert.same({ "abcdefge\u{301}", "x" }, text.wrap("abcdefge\u{301}x", 8))
    assert.equal("配  ", text.pad("配", 4))
  end)

  it("lists the cells of a table that does not fit beside each other", function()
    local rows = { { "1", "identify_need", "", "completed" }, { "2", "x", "y", "a b" } }
    assert.equal("SEQ     1\nSTEP    identify_need\nSTATUS  completed\n\n"
      .. "SEQ     2\nSTEP    x\nAGENT   y\nSTATUS  a b\n",
      text.table({ "SEQ", "STEP", "AGENT", "STATUS" }, rows, 30, false))
    assert.matches("^\27%[1mSEQ   \27%[0m  1\n",
      text.table({ "SEQ", "STEP", "AGENT", "STATUS" }, rows, 30, true))
  end)

  it("breaks tables between words first", function()
    local name = ("n"):rep(25)
    assert.equal("A                          B\n" .. name .. "  many words\n" .. (" "):rep(27)
      .. "that wrap\n", text.table({ "A", "B" }, { { name, "many words that wrap" } }, 38, false))
  end)

  it("tells times in UTC", function()
    assert.equal("1970-01-01 00:00:00", text.time(0))
    assert.equal("2024-02-29 23:59:59", text.time(1709251199999))
    assert.equal("2024-03-01 00:00:00", text.time(1709251200000))
    assert.equal("2000-12-31 12:00:00", text.time(978264000000))
    assert.equal("", text.time(json.null))
  end)
end)

local turn = {
  conversation_id = "0199", status = "waiting_input",
  replies = { { agent = "primary", provider = "offline", text = "Welcome." } },
  prompt = { text = "Which one?", hint = json.null, attempt = 1, input_schema = {
    type = "choice", options = { { label = "The first", value = 1 }, { label = "Another" } } } },
}

describe("a turn", function()
  it("shows who spoke, the prompt and the numbered options", function()
    assert.equal("primary (offline)\n  Welcome.\n\nWhich one?\n  1) The first\n  2) Another\n",
      render("turn", turn, 80, false))
  end)

  it("shows the hint of a refused answer before the prompt", function()
    local prompt = { text = "Name?", hint = "Too short.", input_schema = { type = "text" } }
    assert.equal("Too short.\nName?\n", render("turn", { prompt = prompt }, 80, false))
  end)

  it("shows the options of the field that is next", function()
    local schema = { type = "structured", next = "when", fields = {
      { name = "what", type = "text", placeholder = "thing" },
      { name = "when", type = "choice", options = { { label = "Now" } } } } }
    assert.equal("When?\n  1) Now\n",
      render("turn", { prompt = { text = "When?", input_schema = schema } }, 80, false))
  end)

  it("says how the conversation ended", function()
    local failed = { status = "failed", prompt = json.null, replies = {} }
    assert.equal("The conversation has failed.\n", render("turn", failed, 80, false))
    assert.matches("completed", render("turn", { status = "completed" }, 80, false))
    assert.matches("waiting_event", render("turn", { status = "waiting_event" }, 80, false))
  end)

  it("says who is asked to decide", function()
    local waits = { status = "waiting_approval", prompt = json.null, conversation_id = "0199",
      waiting_for = { role = "man\27ager", text = "Pay 30?", step_id = "ok" } }
    assert.equal("The conversation waits for 'man?ager' to decide: Pay 30?\n",
      render("turn", waits, 80, false))
    assert.matches("waiting_for +man%?ager: Pay 30%?\n", render("conversation", waits, 80, false))
    waits.waiting_for.revision = 7
    assert.equal("The conversation waits for 'man?ager' to decide: Pay 30? (revision 7)\n",
      render("turn", waits, 80, false))
    waits.waiting_for.expires_at = 1763821640000
    assert.matches("Pay 30%? %(revision 7, until 2025%-11%-22 14:27:20%)\n",
      render("conversation", waits, 90, false))
    waits.waiting_for.revision = nil
    assert.equal("The conversation waits for 'man?ager' to decide: Pay 30? (until 2025-11-22\n"
      .. "14:27:20)\n", render("turn", waits, 80, false))
    assert.matches("waiting_for +man%?ager: Pay 30%? %(until 2025%-11%-22 14:27:20%)\n",
      render("conversation", waits, 80, false))
  end)

  it("says which event is waited for, and until when", function()
    local waits = { status = "waiting_event", prompt = json.null,
      waiting_for = { step_id = "hold", event = "paid\27", expires_at = json.null } }
    assert.equal("The conversation waits for the event 'paid?'.\n",
      render("turn", waits, 80, false))
    assert.matches("waiting_for +the event 'paid%?'\n", render("conversation", waits, 80, false))
    waits.waiting_for.expires_at = 1763821640000
    assert.equal("The conversation waits for the event 'paid?' (until 2025-11-22 14:27:20).\n",
      render("turn", waits, 80, false))
    waits.waiting_for.event = nil
    assert.equal("The conversation waits until 2025-11-22 14:27:20.\n",
      render("turn", waits, 80, false))
    assert.matches("waiting_for +2025%-11%-22 14:27:20\n", render("conversation", waits, 80, false))
  end)

  it("of a fork begins with the id of the new conversation", function()
    assert.equal("0199\n" .. render("turn", turn, 80, false), render("fork", turn, 80, false))
  end)

  it("says how far a step is that has an expected duration", function()
    local function shown(elapsed, expected)
      local record = { status = "active", progress = { started = 1000, expected_ms = expected } }
      return render("conversation", record, 80, false, 1000 + elapsed):match "progress +(.-)\n"
    end
    assert.equal("900 ms, expected 2 s", shown(900, 2000))
    assert.equal("130 s, expected 5 min", shown(130999, 300000))
    assert.equal("3 h, expected 5 d", shown(3 * 3600000, 5 * 86400000))
    assert.equal("0 ms, expected 2 s", shown(-5, 2000))
  end)

  it("has colours only when asked for", function()
    assert.is_nil(render("turn", turn, 80, false):find("\27", 1, true))
    assert.is_truthy(render("turn", turn, 80, true):find("\27[1m", 1, true))
  end)
end)

describe("findings", function()
  it("stand one to a line, however long, with a summary", function()
    local answer = { systems = 1, errors = 1, warnings = 0, items = { { file = "s/init.lua",
      line = 12, level = "error", text = ("word "):rep(40) .. "end", rule = "targets" } } }
    local shown = lines(render("check", answer, 40, false))
    assert.equal("s/init.lua:12: error: " .. ("word "):rep(40) .. "end [targets]", shown[1])
    assert.equal("1 system, 1 error, 0 warnings", shown[2])
  end)

  it("leave out a line that is not known", function()
    local answer = { errors = 1, warnings = 0, items = { { file = "s", line = 0, level = "error",
      text = "x", rule = "script" } } }
    assert.equal("s: error: x [script]", lines(render("check", answer, 80, false))[1])
  end)
end)

describe("lists", function()
  it("show the configuration within 80 columns", function()
    local key = "workflow_persistence.sqlite.retention.conversation_ttl"
    local items = { { key = key, value = 2592000,
      origin = "env AMBIVO_AGENTS_WORKFLOW_PERSISTENCE_SQLITE_RETENTION_CONVERSATION_TTL" } }
    local shown = render("config", { items = items }, 80, false)
    assert.is_true(widest(shown) <= 80)
    assert.matches(key .. " = 2592000", shown, 1, true)
  end)

  it("show conversations with whole ids, newest first, and how to see more", function()
    local id = "0199aaaa-0000-7000-8000-00000000000%d"
    local items = {}
    for i = 2, 1, -1 do
      items[#items + 1] = { conversation_id = id:format(i), status = "waiting_input",
        system = "customer_service", flow_id = "comprehensive_workflow", session_id = "s",
        current_step = "identify_need", created = 1709251200000 }
    end
    local shown = render("conversations", { items = items, next = "abc" }, 80, false)
    assert.matches(id:format(2), lines(shown)[1], 1, true)
    assert.is_true(widest(shown) <= 80)
    assert.equal("more: --cursor abc", lines(shown)[5])
    local narrow = render("conversations", { items = items }, 40, false)
    assert.is_true(widest(narrow) <= 40)
    assert.equal(id:format(2), lines(narrow)[1])
    assert.equal("    waiting_input identify_need", lines(narrow)[2])
    assert.equal("no conversations\n", render("conversations", { items = {} }, 80, false))
  end)

  it("say what a fork goes on from", function()
    local fork = { conversation_id = "0199", status = "sleeping", system = "s", flow_id = "f",
      session_id = "x", created = 0, forked_from = { conversation_id = "0198", revision = 3 } }
    assert.matches("session x, fork of 0198 at revision 3\n",
      render("conversations", { items = { fork } }, 100, false), 1, true)
    assert.matches("\nforked_from +0198 at revision 3\n", render("conversation", fork, 80, false))
  end)

  it("show a transcript in the order it was spoken", function()
    local items = {
      { seq = 3, role = "user", text = "hello" }, { seq = 2, role = "prompt", text = "Yes?" },
      { seq = 1, role = "agent", agent = "primary", provider = "offline", text = "Hi." } }
    assert.equal("primary (offline)\n  Hi.\nYes?\n> hello\n",
      render("messages", { items = items, next = json.null }, 80, false))
    items[3] = { seq = 0, role = "note", text = "Gone." }
    assert.equal("Gone.\nYes?\n> hello\n", render("messages", { items = items }, 80, false))
  end)

  it("show steps with attempts, times and errors", function()
    local items = { { seq = 1, step_id = "a", type = "action", attempt = 2, status = "failed",
      start = 10, ["end"] = 25, error = { code = "http.timeout", message = "too slow" } } }
    local shown = render("steps", { items = items }, 120, false)
    assert.matches("15 ms", shown, 1, true)
    assert.matches("failed (attempt 2): too slow [http.timeout]", shown, 1, true)
    items[1].review = { agent = "boss", verdict = "reject", reason = "rude" }
    assert.matches("too slow [http.timeout]; boss: rude", render("steps", { items = items }, 120,
      false), 1, true)
    items[1].branch = "left"
    assert.matches("1 +left/a +action", render("steps", { items = items }, 120, false))
    items[1].branch, items[1].flow = nil, "returns"
    assert.matches("1 +returns/a +action", render("steps", { items = items }, 120, false))
  end)

  it("show which steps were undone, and which are the undo of another", function()
    local shown = render("steps", { items = {
      { seq = 9, step_id = "pay", type = "action", status = "failed", undoes = 2,
        error = { code = "x.y", message = "no" } },
      { seq = 2, step_id = "pay", type = "action", status = "completed", undone = true } } },
      120, false)
    assert.matches("2 +pay +action +completed, undone\n", shown)
    assert.matches("9 +pay +action +failed, undo of 2: no %[x.y%]", shown)
  end)

  it("show systems, flows and checkpoints", function()
    assert.matches("shop +0123456789ab +2 +sells", render("systems", { items = { { name = "shop",
      version = "0123456789abcdef", flows = { {}, {} }, description = "sells" } } }, 80, false))
    assert.matches("shop/returns", render("flows", { items = { { system = "shop",
      flow_id = "returns", pattern = "step_by_step_process" } } }, 80, false), 1, true)
    assert.matches("17 +pay +4 +ask +1970", render("checkpoints", { items = { { checkpoint_id = 17,
      name = "pay", revision = 4, step_id = "ask", created = 0 } } }, 80, false))
  end)

  it("show a conversation with its state", function()
    local shown = render("conversation", { conversation_id = "0199", status = "failed",
      created = 0, prompt = json.null, state = { b = 2, a = "x\27" },
      error = { code = "c", message = "m" } }, 80, false)
    assert.matches("state\n  a = x?\n  b = 2\n", shown, 1, true)
    assert.matches("m [c]", shown, 1, true)
    assert.matches("1970-01-01", shown, 1, true)
  end)
end)

describe("render", function()
  it("refuses a view that is not there and what is no object", function()
    assert.error_matches(function() render("nope", {}, 80, false) end, "no view 'nope'")
    assert.error_matches(function() render("turn", 7, 80, false) end, "JSON object")
  end)
end)

describe("sessions", function()
  local session = { session_id = "s1", user_id = "ann", metadata = json.null, status = "open",
    open_conversations = 2, created = 1763800000000, last_activity = 1763800060000,
    ended = json.null }

  it("are listed within the columns, whatever their names", function()
    local long = { session_id = ("é"):rep(120), user_id = json.null, status = "ended",
      open_conversations = 0, created = 1763800000000, last_activity = 1763800000000,
      ended = 1763800000000 }
    for _, columns in ipairs { 20, 40, 80 } do
      local shown = render("sessions", { items = { session, long } }, columns, false)
      assert.is_true(widest(shown) <= columns, shown)
      local _, count = shown:gsub("é", "")
      assert.equal(120, count)
    end
    local first = lines(render("sessions", { items = { session }, next = "1f-61" }, 80, false))
    assert.same({ "s1  open, 2 open conversations",
      "    2025-11-22 08:26:40, last active 2025-11-22 08:27:40, user ann",
      "more: --cursor 1f-61" }, first)
    assert.equal("no sessions\n", render("sessions", { items = {} }, 80, false))
  end)

  it("are shown with their times", function()
    local shown = render("session", session, 80, false)
    assert.matches("session_id%s+s1\n", shown)
    assert.matches("last_activity%s+2025%-11%-22 08:27:40\n", shown)
    assert.is_nil(shown:find("ended", 1, true))
  end)

  it("and what a reload changed", function()
    assert.equal("a 2 was 1\nb 3 new\nc removed\n", render("reload", { systems = {
      { name = "a", version = "2", previous = "1" }, { name = "b", version = "3" },
      { name = "d", version = "4", previous = "4" } }, removed = { "c" } }, 80, false))
    assert.equal("nothing changed: the scripts are those that were loaded\n", render("reload",
      { systems = { { name = "d", version = "4", previous = "4" } }, removed = {} }, 80, false))
  end)

  it("and what became of a system's conversations", function()
    local items = { { conversation_id = "c1", current_step = "ask" },
      { conversation_id = "c2", current_step = "gone", code = "migrate.step",
        message = "no step" } }
    assert.equal("c1 at ask went\nc2 at gone stays: no step [migrate.step]\n"
      .. "version 3f: 1 went there, 1 stayed behind\n", render("migrate", { items = items,
        version = "3f", dry_run = false, migrated = 1, refused = 1 }, 80, false))
    assert.matches("c1 at ask would go\n.*: 1 would go there, 1 would stay behind\n",
      render("migrate", { items = items, version = "3f", dry_run = true, migrated = 1,
        refused = 1 }, 80, false))
    assert.matches("^Nothing was stored. It would go from version 1 to 2, .*\nCity%?",
      render("turn", { dry_run = true, from_version = "1", flow_version = "2", replies = {},
        prompt = { text = "City?" } }, 80, false))
  end)

  it("and events that were not delivered, within the columns", function()
    local id = "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee:3:0"
    local dead = { id = id, event = "order.placed", status = "dead", attempts = 3,
      created = 1763800000000, next_at = json.null, dead_at = 1763800060000,
      last_error = "the webhook answered 500" }
    local behind = { id = id, event = json.null, status = "pending", attempts = 0,
      created = 1763800000000, next_at = json.null, dead_at = json.null, last_error = json.null }
    local shown = render("outbox", { items = { dead, behind }, next = id }, 80, false)
    assert.same({ id, "    order.placed, 3 attempts, given up 2025-11-22 08:27:40",
      "    the webhook answered 500", id, "    unreadable, 0 attempts, behind an older one",
      "more: --cursor " .. id }, lines(shown))
    dead.status, dead.next_at = "pending", 1763800060000
    assert.matches("next attempt 2025%-11%-22 08:27:40", render("event", dead, 80, false))
    assert.equal("no events\n", render("outbox", { items = {} }, 80, false))
    assert.is_true(widest(render("outbox", { items = { dead, behind } }, 30, false)) <= 30)
  end)

  it("and what a purge removed are one line each", function()
    assert.equal("removed: 1 conversation, 0 sessions\n", render("purge", { dry_run = false,
      conversations = 1, sessions = 0, sessions_ended = 0 }, 80, false))
    assert.equal("would be removed: 0 conversations, 2 sessions\n"
      .. "would be ended: 3 sessions that nobody used\n", render("purge", { dry_run = true,
      conversations = 0, sessions = 2, sessions_ended = 3 }, 80, false))
    assert.equal("removed: 0 conversations, 0 sessions, the sources of 2 versions\n",
      render("purge", { dry_run = false, conversations = 0, sessions = 0, sessions_ended = 0,
        versions = 2 }, 80, false))
    assert.equal("removed: 0 conversations, 0 sessions, 3 events that were given up\n",
      render("purge", { dry_run = false, conversations = 0, sessions = 0, sessions_ended = 0,
        versions = 0, events = 3 }, 80, false))
    assert.equal("would be removed of tenant ann: 2 conversations, 1 session, 3 events that were "
      .. "not delivered\n", render("purge", { tenant = "ann", dry_run = true, conversations = 2,
      sessions = 1, events = 3, store_stays = false }, 80, false))
  end)
end)
