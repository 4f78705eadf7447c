/* webhooks.c - whom events of conversations are told, as the configuration says. */
#include "host.h"

tm_status tm__host_start_outbox(tm_host *h, int64_t poll_ms, tm_error *err) {
  const tm_config *c = h->config;
  if (tm__config_text(c, "webhooks.url")[0] == '\0') return TM_OK;
  tm_status s = tm__http_client_new(&h->webhooks, h->control, TM_DELIVER_MOST, err);
  if (s != TM_OK) return s;
  const tm_deliver_options o = {
      .worker = h->control,
      .storage = h->storage,
      .client = h->webhooks,
      .clock = h->clock,
      .log = &h->log,
      .url = tm__config_text(c, "webhooks.url"),
      .secret = tm__config_text(c, "webhooks.secret"),
      .previous_secret = tm__config_text(c, "webhooks.previous_secret"),
      .timeout_ms = tm__config_ms(c, "webhooks.timeout"),
      .give_up_ms = tm__config_ms(c, "webhooks.give_up_after"),
      .poll_ms = poll_ms,
  };
  return tm__deliver_new(&h->deliver, &o, err);
}
