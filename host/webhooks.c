/* webhooks.c - whom events of conversations are told, as the configuration says, and the public
 * functions about those that were not delivered. */
#include "host.h"
#include "outbox/list.h"

/* Before a process delivers anything: most commands are over by then. */
enum { QUIET_MS = 1000 };

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
      .quiet_ms = QUIET_MS,
  };
  return tm__deliver_new(&h->deliver, &o, err);
}

static tm_slice tenant_of(const char *tenant) {
  return tm__slice(tenant != NULL ? tenant : "default");
}

void tm_outbox_list(tm_host *h, const char *tenant, const char *status, const char *cursor,
                    int limit, tm_reply_fn fn, void *ud) {
  tm_error err;
  if (!tm__host_enter(h, &err)) {
    tm__host_refuse(fn, ud, &err);
    return;
  }
  tm__outbox_list(h->storage, tenant_of(tenant), status, tm__slice(cursor), limit, fn, ud);
  tm__host_leave(h);
}

/* Whoever delivers finds it with the next look, in this process or another. */
void tm_outbox_retry(tm_host *h, const char *tenant, const char *event_id, tm_reply_fn fn,
                     void *ud) {
  tm_error err;
  if (!tm__host_enter(h, &err)) {
    tm__host_refuse(fn, ud, &err);
    return;
  }
  int64_t now = tm__clock_now(&h->clock);
  tm__host_leaves(h);
  tm__outbox_retry(h->storage, tenant_of(tenant), tm__slice(event_id), now, fn, ud);
  tm__host_leave(h);
}
