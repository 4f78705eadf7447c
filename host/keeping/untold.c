/* untold.c - takes what is due, as whoever delivers it does: so a host that does is not disturbed.
 * Of a conversation the one that is due goes last, for as long as it is there those behind it wait.
 */
#include "keeping/untold.h"

#include <limits.h>
#include <string.h>

#define PAGE     64
#define LEASE_MS 60000
#define REASON   "nobody is to be told: webhooks.url is not set"

typedef struct behind { /* the newest of a conversation's that wait */
  const tm_outgoing *due;
  int64_t since;
  tm_outgoing found[PAGE];
  size_t seen, count;
} behind;

tm_status tm__untold_look(const tm_store_access *a, bool in_memory, int64_t since, bool *out,
                          tm_error *err) {
  int64_t next = 0;
  tm_status status = tm__access_next_event(a, in_memory, &next, err);
  *out = status == TM_OK && next > 0 && next <= since;
  return status;
}

static tm_status on_taken(void *ud, const tm_outgoing *event) {
  tm_outgoing *out = ud;
  *out = *event;
  out->body = (tm_slice){NULL, 0};
  return TM_OK;
}

static bool is_same(const tm_outgoing *a, const tm_outgoing *b) {
  return a->revision == b->revision && a->index == b->index;
}

static tm_status on_waiting(void *ud, const tm_outgoing *event) {
  behind *b = ud;
  if (strcmp(event->conversation, b->due->conversation) != 0) return TM_ECANCELLED;
  b->seen++;
  if (!is_same(event, b->due) && event->created <= b->since)
    (void)on_taken(&b->found[b->count++], event);
  return TM_OK;
}

static tm_status find_behind(behind *b, const tm_store_access *a, bool in_memory, tm_error *err) {
  tm_outgoing_filter f = {
      .dead = 0, .before_revision = INT64_MAX, .before_index = INT_MAX, .limit = PAGE};
  memcpy(f.before, b->due->conversation, sizeof(f.before));
  const tm_store_backend *backend = in_memory ? a->memory_backend : a->backend;
  tm_store_conn *conn = in_memory ? a->memory_conn : a->conn;
  tm_status status = backend->outbox_list(conn, &f, on_waiting, b, err);
  return status == TM_ECANCELLED ? TM_OK : status;
}

static tm_status settle(const tm_store_access *a, bool in_memory, const char *tenant,
                        tm_outgoing *event, tm_outcome outcome, int64_t at, tm_error *err) {
  (void)tm__copy(event->note, sizeof(event->note), TM_S(REASON));
  if (event->tenant[0] == '\0') /* its record is damaged */
    (void)tm__copy(event->tenant, sizeof(event->tenant), tm__slice(tenant));
  tm_status status = tm__access_settle_event(a, in_memory, event, outcome, at, err);
  return status == TM_ECONFLICT ? TM_OK : status;
}

tm_status tm__untold_give_up(const tm_store_access *a, bool in_memory, const char *tenant,
                             int64_t since, int64_t now, size_t *count, tm_error *err) {
  tm_outgoing due = {.index = -1};
  behind b = {.due = &due, .since = since};
  const tm_store_backend *backend = in_memory ? a->memory_backend : a->backend;
  tm_store_conn *conn = in_memory ? a->memory_conn : a->conn;
  *count = 0;
  tm_status status = backend->outbox_take(conn, since, now + LEASE_MS, 1, on_taken, &due, err);
  if (status != TM_OK || due.index < 0) return status;
  status = find_behind(&b, a, in_memory, err);
  for (size_t i = 0; status == TM_OK && i < b.count; i++)
    status = settle(a, in_memory, tenant, &b.found[i], TM_OUTCOME_DEAD, now, err);
  if (status != TM_OK) return status;
  bool more = b.seen == PAGE && b.count > 0; /* it is due again at once, for the rest */
  *count = b.count + !more;
  return settle(a, in_memory, tenant, &due, more ? TM_OUTCOME_LATER : TM_OUTCOME_DEAD,
                more ? since : now, err);
}
