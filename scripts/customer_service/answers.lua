-- What the agents say and choose when no model is configured: templates over the state of the
-- conversation, and rules that tell a simple request from a complex one.
local M = {}

M.welcome = [[
Welcome to customer service. I am here to listen to what you need, to find a solution with you, and
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
Thank you, I have noted your request: "{user_request}". I am looking at it now. If one answer
settles it you will have it in a moment; if it needs more, I will ask for a few details and pass
them to our specialist.]]

M.assessment = [[
I am the specialist for requests of this kind and have gone through your details. You asked for:
"{user_request}". The solution must do this: "{specific_requirements}". You need it {timeline}. I am
weighing what can be done in that time against what you require.]]

M.direct_solution = [[
Here is what I suggest for "{user_request}". First, keep your customer or order number at hand, so
that everybody who helps you sees the same record. Second, I have opened a case with your
description; our team works on it without further action from you. Third, you get a message as soon
as it is settled, at the latest on the next working day. I chose this way because it needs nothing
more from you now.]]

M.full_solution = [[
There are two ways to get "{specific_requirements}". Option A, the standard solution, is proven and
ready quickly, but you adapt to it. Option B, a solution made for you, fits exactly, but takes
longer and costs more. As you need it {timeline}, I recommend to begin with option A and to extend
it step by step. We confirm the scope in writing, you name a contact, we deliver and go through the
result with you. The main risk is a late change of requirements, so please tell us early.]]

M.feedback = [[
Thank you for saying how you see it: "{feedback}". I have added it to your case. Where everything is
settled, or needs time to be thought over, I will sum up for you how it goes on; where something is
missing, we take it up right now.]]

M.answer = [[
You asked: "{question}". I have added it to your case about "{user_request}". In short: nothing that
you do not confirm will be changed or charged, and you can see the state of the case at any time.
Where your question needs figures, they come with the written confirmation.]]

M.farewell = [[
To sum up: we took up your request "{user_request}" and agreed on how it goes on. You will receive a
written confirmation. Should anything come up, just start a new conversation here. Thank you for
your time, and goodbye.]]

-- As one paragraph each: the line breaks above are for the reader of this file.
for name, text in pairs(M) do
  if type(text) == "string" then M[name] = (text:gsub("\n", " ")) end
end

return M
