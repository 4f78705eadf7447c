-- Tasks: who waits, what a failure brings, what cancelling guarantees.
local Host = require "tests.lua.fake_host"
local task = require "tidemill.task"

local function no_crash(err) error("crashed: " .. tostring(err), 0) end

describe("a task", function()
  local host, started
  local operation

  before_each(function()
    host = Host.new {}
    started = 0
    operation = function()
      started = started + 1
      host.pending[#host.pending + 1] = { id = 1000 + started }
      return 1000 + started
    end
  end)

  it("waits for an operation and gets what done brings", function()
    local got
    task.spawn(function() got = table.pack(task.await(operation())) end, no_crash)
    assert.is_nil(got)
    task.dispatch(1001, "done", 7, "x")
    assert.same({ 7, "x", n = 2 }, got)
    assert.equal(0, task.count())
  end)

  it("gets true when done brings nothing, nil and the error when it failed", function()
    local first, second, err
    task.spawn(function()
      first = task.await(operation())
      second, err = task.await(operation())
    end, no_crash)
    task.dispatch(1001, "done")
    task.dispatch(1002, "failed", { code = "http.timeout" })
    assert.is_true(first)
    assert.is_nil(second)
    assert.equal("http.timeout", err.code)
  end)

  it("goes on at once when nothing was started", function()
    local value, err
    task.spawn(function() value, err = task.await(nil, "no") end, no_crash)
    assert.is_nil(value)
    assert.equal("no", err)
  end)

  it("takes the data of a stream in between", function()
    local data, ended = {}, nil
    task.spawn(function()
      ended = task.await(operation(), nil, function(piece) data[#data + 1] = piece end)
    end, no_crash)
    task.dispatch(1001, "data", "a")
    task.dispatch(1001, "data", "b")
    task.dispatch(1001, "done")
    task.dispatch(1001, "data", "late")
    assert.same({ "a", "b" }, data)
    assert.is_true(ended)
  end)

  it("is dropped by cancel: its operation is cancelled, nothing comes any more", function()
    local closed, reached = false, false
    local running = task.spawn(function()
      local _ <close> = setmetatable({}, { __close = function() closed = true end })
      task.await(operation())
      reached = true
    end, no_crash)
    task.cancel(running)
    assert.equal(1, host.cancelled)
    assert.is_false(closed) -- nobody would bound what it does
    task.dispatch(1001, "done")
    assert.is_false(reached)
    assert.equal(0, task.count())
  end)

  it("ends at its next wait when it cancels itself", function()
    local running, reached
    running = task.spawn(function()
      task.await(operation())
      task.cancel(running)
      task.await(operation())
      reached = true
    end, no_crash)
    task.dispatch(1001, "done")
    task.dispatch(1002, "done")
    assert.is_nil(reached)
    assert.equal(0, task.count())
  end)

  it("tells its owner once when it raises, and leaves nothing behind", function()
    local seen = {}
    task.spawn(function()
      task.await(operation())
      error({ code = "x" })
    end, function(err) seen[#seen + 1] = err end)
    task.dispatch(1001, "done")
    assert.same({ { code = "x" } }, seen)
    assert.equal(0, task.count())
  end)

  it("is needed for waiting", function()
    assert.has_error(function() task.await(1) end, "await outside a task")
  end)

  it("ignores operations and turns that nobody knows", function()
    task.dispatch(4711, "done", 1)
    task.dispatch(4711, "failed", {})
    task.dispatch(4711, "cancel")
    assert.has_error(function() task.dispatch(0, "nonsense") end)
    assert.has_error(function() task.dispatch(5, "nonsense") end)
  end)
end)
