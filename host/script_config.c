/* script_config.c - the part of the configuration that the Lua runtime works with: what
 * host.config.get() answers. Decides nothing: the runtime says which of several settings counts. */
#include "host.h"

static void add_fallback(tm_buf *b, const tm_config *c, const char *name, const char *path) {
  const char *said = tm__config_text(c, path);
  if (said[0] != '\0') tm__json_member_text(b, name, said);
}

#define FALLBACK "orchestrator.error_config.fallback_responses."

/* What a conversation does with a step whose attempts are used up. */
static void add_recovery(tm_buf *b, const tm_config *c) {
  tm__json_member_bool(b, "auto_recovery",
                       tm__config_bool(c, "orchestrator.error_config.auto_recovery"));
  tm__json_key(b, "fallback_responses");
  tm__buf_byte(b, '{');
  add_fallback(b, c, "agent_timeout", FALLBACK "agent_timeout");
  add_fallback(b, c, "agent_error", FALLBACK "agent_error");
  add_fallback(b, c, "network_error", FALLBACK "network_error");
  tm__buf_byte(b, '}');
}

char *tm__host_script_config(const tm_config *c, const tm_keyring *keys) {
  tm_buf b = {0};
  tm__buf_byte(&b, '{');
  tm__json_member_int(&b, "interaction_timeout_ms",
                      tm__config_ms(c, "orchestrator.session_config.default_timeout"));
  tm__json_member_int(&b, "max_retries",
                      tm__config_int(c, "orchestrator.error_config.max_retries"));
  tm__json_member_int(&b, "retry_delay_ms",
                      tm__config_ms(c, "orchestrator.error_config.retry_delay"));
  add_recovery(&b, c);
  tm__json_member_int(&b, "step_timeout_ms",
                      tm__config_ms(c, "orchestrator.performance_config.step_timeout"));
  tm__json_member_int(&b, "max_workflow_duration_ms",
                      tm__config_ms(c, "orchestrator.performance_config.max_workflow_duration"));
  tm__json_member_bool(&b, "parallel_execution",
                       tm__config_bool(c, "orchestrator.performance_config.parallel_execution"));
  tm__json_member_bool(&b, "resource_monitoring",
                       tm__config_bool(c, "orchestrator.performance_config.resource_monitoring"));
  tm__json_member_bool(&b, "auto_checkpoint",
                       tm__config_bool(c, "workflow_persistence.general.auto_checkpoint"));
  tm__json_member_int(&b, "checkpoint_interval_ms",
                      tm__config_ms(c, "workflow_persistence.general.checkpoint_interval"));
  tm__json_member_bool(&b, "persist_state",
                       tm__config_bool(c, "orchestrator.persistence_config.auto_save"));
  tm__json_member_bool(&b, "compress", tm__host_compresses(c));
  tm__json_member_bool(&b, "seal", tm__host_seals(c));
  tm__json_member_bool(&b, "can_seal", tm__keyring_can_seal(keys));
  tm__json_member_bool(&b, "isolates", tm__config_bool(c, "tenants.isolation"));
  tm__json_member_int(&b, "output_limit", tm__config_int(c, "limits.output"));
  tm__json_member_int(&b, "http_response_limit", tm__config_int(c, "limits.http_response"));
  tm__json_member_bool(&b, "webhooks", tm__config_text(c, "webhooks.url")[0] != '\0');
  tm__json_key(&b, "llm");
  tm__buf_byte(&b, '{');
  tm__json_member_text(&b, "provider", tm__config_text(c, "llm.provider"));
  tm__buf_text(&b, "}}");
  return tm__buf_take(&b);
}
