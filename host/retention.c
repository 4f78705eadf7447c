/* retention.c - what is kept and for how long, as the configuration says. */
#include "host.h"

/* Without a receiver nobody tries events, and nobody gives them up but retention. */
static int64_t untold_ms(const tm_config *c) {
  int64_t ms = tm__config_ms(c, "webhooks.give_up_after");
  if (tm__config_text(c, "webhooks.url")[0] != '\0') return 0;
  return ms > 0 ? ms : 1;
}

tm_retention tm__host_retention(const tm_config *c) {
  tm_retention r = {
      .conversation_ms = tm__config_ms(c, "workflow_persistence.retention.conversation_ttl"),
      .checkpoints =
          {
              .ms = tm__config_ms(c, "workflow_persistence.retention.checkpoint_ttl"),
              .most = tm__config_int(c, "workflow_persistence.general.max_checkpoints_per_session"),
          },
      .session_ms = tm__config_ms(c, "workflow_persistence.retention.session_ttl"),
      .dead_event_ms = tm__config_ms(c, "webhooks.dead_ttl"),
      .untold_ms = untold_ms(c),
      .cleanup_ms = tm__config_ms(c, "workflow_persistence.retention.cleanup_interval"),
      .sessions = {
          .idle_ms = tm__config_ms(c, "orchestrator.session_config.idle_session_timeout"),
          .look_ms = tm__config_ms(c, "orchestrator.session_config.session_cleanup_interval"),
          .most = tm__config_int(c, "orchestrator.session_config.max_concurrent_sessions"),
          .tenant_most =
              tm__config_int(c, "orchestrator.session_config.quota_limits.max_sessions_per_tenant"),
      }};
  (void)tm__copy(r.sessions.prefix, sizeof(r.sessions.prefix),
                 tm__slice(tm__config_text(c, "orchestrator.session_config.session_prefix")));
  return r;
}
