-- The flow `comprehensive_workflow`: welcome, the request, a short answer or a worked-out solution,
-- feedback, further questions, farewell.
--
--   welcome        → identify_need
--   identify_need  → analyze_request → simple: provide_solution → get_feedback
--                                    → complex: collect_details → process_details
--                                               → present_solution → get_feedback
--   get_feedback   → handle_feedback → content, undecided: completion
--                                    → questions, changes: followup_questions
--                                    → not right: collect_details
--   followup_questions → answer_questions → check_satisfaction → back to either, or completion
local tm = require "tidemill"
local agents = require "agents"
local answers = require "answers"

local ConversationFlow, ConversationStep = tm.ConversationFlow, tm.ConversationStep

local steps = {
  ConversationStep {
    step_id = "welcome",
    step_type = "agent_response",
    agent = agents.primary,
    prompt = [[
Greet the customer. Say who you are, what this desk can help with, and that you will first listen,
then propose a solution and stay until every question is answered. Three sentences at most.]],
    response = answers.welcome,
    next_steps = { "identify_need" },
    metadata = { step_category = "introduction", required_context = {} },
  },

  ConversationStep {
    step_id = "identify_need",
    step_type = "user_input",
    prompt = "What can we do for you? Tell us in a sentence or two what you need.",
    input_schema = {
      type = "text",
      required = true,
      min_length = 10,
      max_length = 500,
      placeholder = "For example: my parcel has not arrived",
      validation_hints = {
        "A few more words, please: what happened, or what would you like to have?",
        "There is no special form, just describe it as you would to a colleague.",
      },
    },
    next_steps = { "analyze_request" },
    metadata = {
      step_category = "information_gathering",
      data_collection = { "user_request" },
      timeout = 300,
    },
  },

  ConversationStep {
    step_id = "analyze_request",
    step_type = "agent_response",
    agent = agents.primary,
    prompt = [[
The customer's request: {user_request}
Show in one or two sentences that you have understood it, and say what happens next. It is a
simple_request when one short answer settles it. It is a complex_request when it depends on details
that you do not have yet, concerns several systems or people, or needs expert knowledge.]],
    response = answers.analysis,
    outcome = answers.complexity,
    next_steps = { "provide_solution", "collect_details" },
    conditional_logic = {
      condition = "request_complexity",
      classify = true,
      simple_request = "provide_solution",
      complex_request = "collect_details",
      default = "provide_solution",
    },
    metadata = {
      step_category = "analysis",
      required_context = { "user_request" },
      decision_point = true,
    },
  },

  ConversationStep {
    step_id = "collect_details",
    step_type = "user_input",
    prompt = "So that our specialist can work on this properly, we need a few details.",
    input_schema = {
      type = "structured",
      fields = {
        {
          name = "specific_requirements",
          type = "text",
          required = true,
          prompt = "What exactly must the solution do?",
        },
        {
          name = "timeline",
          type = "choice",
          required = true,
          prompt = "When do you need it?",
          options = {
            { label = "Urgent (today)", value = "today" },
            { label = "Soon (this week)", value = "this week" },
            { label = "Flexible (this month)", value = "this month" },
            { label = "Planning ahead", value = "later on" },
          },
        },
        {
          name = "budget_considerations",
          type = "text",
          required = false,
          prompt = "Is there a budget that we should keep to? (optional)",
        },
      },
    },
    next_steps = { "process_details" },
    metadata = {
      step_category = "detailed_information_gathering",
      data_collection = { "specific_requirements", "timeline", "budget_considerations" },
    },
  },

  ConversationStep {
    step_id = "process_details",
    step_type = "agent_response",
    agent = agents.specialist,
    prompt = [[
The request: {user_request}
What it must do: {specific_requirements}
When: {timeline}
Budget, if anything was said about it: {budget_considerations}
Go through this as the specialist. Name the constraints, the ways that are open, and what you will
base the proposal on. Do not propose anything yet.]],
    response = answers.assessment,
    save_as = "assessment",
    next_steps = { "present_solution" },
    metadata = {
      step_category = "processing",
      required_context = { "user_request", "specific_requirements", "timeline" },
      requires_specialist = true,
    },
  },

  ConversationStep {
    step_id = "provide_solution",
    step_type = "agent_response",
    agent = agents.primary,
    prompt = [[
The customer's request: {user_request}
Give the answer: what you recommend, why, and what the customer should do next, step by step. Close
by inviting questions.]],
    response = answers.direct_solution,
    next_steps = { "get_feedback" },
    metadata = {
      step_category = "solution_delivery",
      required_context = { "user_request" },
      solution_type = "direct",
    },
  },

  ConversationStep {
    step_id = "present_solution",
    step_type = "agent_response",
    agent = agents.specialist,
    prompt = [[
Your assessment was: {assessment}
Present the solution for: {user_request}
Offer two or three options with their advantages and drawbacks, recommend the one that fits
{specific_requirements} by {timeline}, list the steps to get there, and name the risks.]],
    response = answers.full_solution,
    next_steps = { "get_feedback" },
    metadata = {
      step_category = "solution_delivery",
      required_context = { "specific_requirements", "timeline", "assessment" },
      solution_type = "comprehensive",
    },
  },

  ConversationStep {
    step_id = "get_feedback",
    step_type = "user_input",
    prompt = "How does this suit you? You may also answer in your own words.",
    input_schema = {
      type = "choice",
      required = true,
      allow_custom_response = true,
      options = {
        { label = "Perfect, exactly what I needed", value = "satisfied" },
        { label = "Good, but I have some questions", value = "questions" },
        { label = "Helpful, but it needs some changes", value = "changes" },
        { label = "Not quite right, let me give more details", value = "not right" },
        { label = "I have to think about it", value = "undecided" },
      },
    },
    next_steps = { "handle_feedback" },
    metadata = {
      step_category = "feedback_collection",
      data_collection = { "feedback" },
      satisfaction_check = true,
    },
  },

  ConversationStep {
    step_id = "handle_feedback",
    step_type = "agent_response",
    agent = agents.primary,
    prompt = [[
The customer was asked how the solution suits them and said: {feedback}
Respond to that. When they are content, sum up what happens next. When they have questions or want
changes, say that you are glad to go through them now. When it was not right, say that you will look
at it afresh with more details. When they want to think about it, tell them how to come back.]],
    response = answers.feedback,
    next_steps = { "followup_questions", "collect_details", "completion" },
    conditional_logic = {
      condition = "feedback",
      satisfied = "completion",
      undecided = "completion",
      questions = "followup_questions",
      changes = "followup_questions",
      ["not right"] = "collect_details",
      default = "followup_questions",
    },
    metadata = {
      step_category = "feedback_handling",
      required_context = { "feedback" },
      potential_loop_back = true,
    },
  },

  ConversationStep {
    step_id = "followup_questions",
    step_type = "user_input",
    prompt = "What would you like to know, or to have changed?",
    input_schema = { type = "text", required = true, placeholder = "Your question..." },
    next_steps = { "answer_questions" },
    metadata = {
      step_category = "follow_up",
      data_collection = { "question" },
      allows_multiple_iterations = true,
    },
  },

  ConversationStep {
    step_id = "answer_questions",
    step_type = "agent_response",
    agent = agents.primary,
    prompt = [[
The customer asks: {question}
It concerns their request: {user_request}
Answer the question itself first, then give an example where that helps, and say how it relates to
what they asked for in the beginning.]],
    response = answers.answer,
    next_steps = { "check_satisfaction" },
    metadata = {
      step_category = "question_answering",
      required_context = { "question", "user_request" },
    },
  },

  ConversationStep {
    step_id = "check_satisfaction",
    step_type = "user_input",
    prompt = "Does that answer it? Is there anything else?",
    input_schema = {
      type = "choice",
      required = true,
      options = {
        { label = "Yes, that covers everything", value = "satisfied" },
        { label = "I have one more question", value = "more_questions" },
        { label = "I need help with something else", value = "something_else" },
        { label = "No, I'm all set", value = "all_set" },
      },
    },
    next_steps = { "completion", "followup_questions", "identify_need" },
    conditional_logic = {
      condition = "satisfaction",
      satisfied = "completion",
      all_set = "completion",
      more_questions = "followup_questions",
      something_else = "identify_need",
      default = "completion",
    },
    metadata = {
      step_category = "satisfaction_verification",
      data_collection = { "satisfaction" },
    },
  },

  ConversationStep {
    step_id = "completion",
    step_type = "agent_response",
    agent = agents.primary,
    prompt = [[
The conversation ends here; it was about: {user_request}
Sum up in two sentences what was settled and what happens next, say how to reach the desk again, and
thank the customer.]],
    response = answers.farewell,
    metadata = { step_category = "completion", required_context = { "user_request" } },
  },
}

return ConversationFlow {
  flow_id = "comprehensive_workflow",
  name = "Customer service",
  description = "From the first request to a solution the customer is content with",
  pattern = tm.ConversationPattern.STEP_BY_STEP_PROCESS,
  start_step = "welcome",
  end_steps = { "completion" },
  settings = {
    auto_checkpoint = true,
    checkpoint_interval = 30,
    enable_rollback = true,
    max_rollback_steps = 5,
    interaction_timeout = 600,
    max_retries = 3,
    retry_delay = 2.0,
    persist_state = true,
  },
  steps = steps,
}
