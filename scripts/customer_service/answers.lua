-- What the agents say and choose when no model is configured: templates over the state of the
-- conversation, and rules that tell a simple request from a complex one. Nothing here is connected
-- to another system, so no reply may say that something was opened, noted elsewhere or sent.
local M = {}

M.welcome = [[
Welcome to customer service. I am here to listen to what you need, to find a way to it with you, and
to stay until every question is answered. If it takes expert knowledge, I will bring in a
specialist.]]

-- A request that contains one of these needs details before it can be answered; so does a long one.
M.complexity = {
  { from = "user_request", outcome = "complex_request", contains = {
    "integrat", "migrat", "customi", "enterprise", "architecture", "compliance", "contract",
    "project", "rollout", "several", "multiple", "automat",
  } },
  { from = "user_request", outcome = "complex_request", longer_than = 200 },
  default = "simple_request",
}

M.analysis = [[
Thank you. This is how I understand your request: "{user_request}". If one answer settles it you
will have it in a moment; if it needs more, I will ask for a few details and hand them to our
specialist.]]

M.assessment = [[
I am the specialist for requests of this kind. You asked for: "{user_request}". The solution must do
this: "{specific_requirements}". You need it {timeline}. What matters most is how much of that can
be ready by then, so I look at what exists already before anything that would have to be made.]]

M.direct_solution = [[
Here is what I suggest for "{user_request}". First, have your customer or order number at hand, so
that everybody who helps you looks at the same record. Second, see what your account says about it,
and correct there what you can correct yourself. Third, if something is left over, tell me which
point it is and we go through it here. I chose this order because it costs you the least time.
Nothing has been changed for you so far. Is there anything you would like me to explain?]]

M.full_solution = [[
There are two ways to get "{specific_requirements}". Option A, the standard solution, is proven and
ready quickly, but you adapt to it. Option B, a solution made for you, fits exactly, but takes
longer and costs more. As you need it {timeline}, I recommend to begin with option A and to extend
it step by step. The way there: agree on the scope in writing, name one contact on each side, put
option A to use, and go through the result together. The main risk is a late change of requirements,
so settle early what must not be missing.]]

M.feedback = [[
Thank you for saying how you see it: "{feedback}". If all is settled, or you would like to think it
over, I sum up and we close here; if something is open or missing, we take it up right now.]]

M.answer = [[
You asked: "{question}". That belongs to your request "{user_request}". In short: nothing that we
say here changes, orders or charges anything, so you can decide in your own time. Should it be about
a price or a date, for example, have it given to you in writing before you agree to it.]]

M.farewell = [[
To sum up: you came with "{user_request}", and we went through what can be done about it. The next
step is yours; nothing has been ordered or changed by this conversation. Should anything come up,
just start a new one here. Thank you for your time, and goodbye.]]

-- As one paragraph each: the line breaks above are for the reader of this file.
for name, text in pairs(M) do
  if type(text) == "string" then M[name] = (text:gsub("\n", " ")) end
end

return M
