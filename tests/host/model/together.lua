-- Messages that were sent at once: what may have come of them by what `concurrency` says. A play
-- is a list of turns, the oldest first; a turn has the numbers of the messages that it took as one,
-- and `lost` where another message has taken its place.
local M = {}

local function is_text(raw) return raw:sub(1, 1) == '"' end

local function join_texts(raws)
  local texts = {}
  for i, raw in ipairs(raws) do texts[i] = raw:match '^"(.*)"$' end
  return ('"%s"'):format(table.concat(texts, "\n"))
end

-- Of a member that several have the last one counts.
local function join_objects(raws)
  local members, names = {}, {}
  for _, raw in ipairs(raws) do
    for name, value in raw:gmatch '"(%w+)":("?[^",}]*"?)' do
      if not members[name] then names[#names + 1] = name end
      members[name] = value
    end
  end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = ('"%s":%s'):format(name, members[name]) end
  return "{" .. table.concat(names, ",") .. "}"
end

---@param raws string[] all texts, or all objects
---@return string raw
function M.join(raws)
  if #raws == 1 then return raws[1] end
  return is_text(raws[1]) and join_texts(raws) or join_objects(raws)
end

local plays = {}

local function one_by_one(said, code)
  local play = {}
  for i, message in ipairs(said) do
    if message.code ~= code then play[#play + 1] = { i } end
  end
  return play
end

function plays.queue(said) return { one_by_one(said, false) } end

-- The first one has nobody before it.
function plays.reject(said)
  if said[1].code == "conversation.busy" then return {} end
  return { one_by_one(said, "conversation.busy") }
end

-- The last one has nobody behind it.
function plays.interrupt(said)
  local play = {}
  for i, message in ipairs(said) do
    play[i] = { i, lost = message.code == "conversation.interrupted" }
  end
  return play[#play].lost and {} or { play }
end

-- Those that have waited are one, so that there are as many as ways to part them. A text and an
-- object never are.
function plays.merge(said)
  local all = { {} }
  for i, message in ipairs(said) do
    local longer = {}
    for _, play in ipairs(all) do
      local apart, last = table.move(play, 1, #play, 1, {}), play[#play]
      apart[#apart + 1] = { i }
      longer[#longer + 1] = apart
      if last and is_text(said[i - 1].raw) == is_text(message.raw) then
        local joined = table.move(play, 1, #play, 1, {})
        joined[#joined] = table.move(last, 1, #last, 1, {})
        table.insert(joined[#joined], i)
        longer[#longer + 1] = joined
      end
    end
    all = longer
  end
  return all
end

---@param concurrency string
---@param said { raw: string, code: string?, text: string }[] as it was sent, and its answer
---@return table[] plays
function M.plays(concurrency, said) return plays[concurrency](said) end

return M
