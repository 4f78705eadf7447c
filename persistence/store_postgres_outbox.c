/* store_postgres_outbox.c - events to be delivered. */
#include <sodium.h>

#include "core/json.h"
#include "persistence/outgoing.h"
#include "persistence/store_postgres.h"

/* ---- with a commit ---- */

static void add_base64(tm_buf *b, tm_slice bytes) {
  size_t size = sodium_base64_encoded_len(bytes.len, sodium_base64_VARIANT_ORIGINAL);
  char *room = tm__buf_room(b, size);
  if (room == NULL) return;
  (void)sodium_bin2base64(room, size, (const unsigned char *)bytes.ptr, bytes.len,
                          sodium_base64_VARIANT_ORIGINAL);
  b->len += size - 1;
}

void tm__pg_events_json(tm_buf *b, const tm_commit *item) {
  tm_outgoing event;
  for (size_t i = 0; i < item->event_count; i++) {
    tm__outgoing_of(&event, item, i);
    tm__buf_text(b, i == 0 ? "[{" : ",{");
    tm__json_member_int(b, "i", event.index);
    tm__json_member_int(b, "c", event.created);
    tm__json_member_int(b, "f", event.flags);
    tm__json_member_text(b, "t", event.tenant);
    tm__buf_text(b, ",\"b\":\"");
    add_base64(b, event.body);
    tm__buf_text(b, "\"}");
  }
  tm__buf_byte(b, ']');
}

/* ---- reading ---- */

static bool decode(const PGresult *r, int row, tm_outgoing *e) {
  *e = (tm_outgoing){.revision = tm__pg_get_int(r, row, 1),
                     .index = (int)tm__pg_get_int(r, row, 2),
                     .created = tm__pg_get_int(r, row, 4),
                     .due_at = tm__pg_get_int(r, row, 5),
                     .dead_at = tm__pg_get_int(r, row, 6),
                     .attempts = (int)tm__pg_get_int(r, row, 7),
                     .flags = (uint32_t)tm__pg_get_int(r, row, 9),
                     .body = tm__pg_get(r, row, 10)};
  return tm__outgoing_texts(e, tm__pg_get(r, row, 0), tm__pg_get(r, row, 3), tm__pg_get(r, row, 8));
}

tm_status tm__pg_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err) {
  const tm_pg_args none = {0};
  PGresult *r = NULL;
  *out = 0;
  tm_status status = tm__pg_read(c, TM_PG_NEXT_EVENT, NULL, &none, &r, "find the next event", err);
  if (status == TM_OK && PQntuples(r) > 0) *out = tm__pg_get_int(r, 0, 0);
  PQclear(r);
  return status;
}

static int64_t bounded(size_t limit) {
  return limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
}

#define PAGE 64

/* Gives a page of those behind `f`, which moves on; *full: there may be more. */
static tm_status list_page(tm_store_conn *c, tm_outgoing_filter *f, bool *full, tm_outgoing_fn fn,
                           void *ud, tm_error *err) {
  PGresult *r = NULL;
  tm_pg_args a = {0};
  int64_t page = f->limit < PAGE ? (int64_t)f->limit : PAGE;
  tm__pg_bytes(&a, f->tenant);
  tm__pg_int(&a, f->dead);
  tm__pg_int(&a, page);
  tm__pg_text(&a, f->before);
  tm__pg_int(&a, f->before_revision);
  tm__pg_int(&a, f->before_index);
  tm_status status = tm__pg_read(c, TM_PG_LIST_EVENTS, NULL, &a, &r, "list events", err);
  *full = status == TM_OK && PQntuples(r) == page;
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++) {
    tm_outgoing event;
    if (!decode(r, i, &event)) continue;
    memcpy(f->before, event.conversation, sizeof(f->before));
    f->before_revision = event.revision;
    f->before_index = event.index;
    f->limit--;
    status = fn(ud, &event);
  }
  PQclear(r);
  return status;
}

tm_status tm__pg_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                             void *ud, tm_error *err) {
  tm_outgoing_filter rest = *f;
  bool full = true;
  tm_status status = TM_OK;
  if (!tm__pg_is_text(tm__slice(f->before))) return TM_OK;
  while (status == TM_OK && full && rest.limit > 0)
    status = list_page(c, &rest, &full, fn, ud, err);
  return status;
}

/* ---- taking ---- */

typedef struct taking {
  tm_pg_work work;
  const tm_pg_args *args;
  tm_outgoing_batch batch;
  bool full;
} taking;

static bool send_take(tm_pg_work *w, PGconn *pg) {
  taking *t = (taking *)(void *)w;
  tm__outgoing_free(&t->batch); /* of an attempt before */
  t->full = false;
  return tm__pg_send(pg, TM_PG_TAKE_EVENTS, t->args);
}

static void see_taken(tm_pg_work *w, size_t index, PGresult *r) {
  taking *t = (taking *)(void *)w;
  tm_outgoing event;
  (void)index;
  for (int i = 0; i < PQntuples(r); i++) {
    if (decode(r, i, &event) && tm__outgoing_add(&t->batch, &event, NULL) != TM_OK)
      t->full = true; /* what is not given out is due again when its lease ends */
  }
}

/* Nothing is written when nothing is due. */
tm_status tm__pg_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                             tm_outgoing_fn fn, void *ud, tm_error *err) {
  int64_t due = 0;
  tm_pg_args a = {0};
  taking t = {.work = {"take events", send_take, see_taken}, .args = &a};
  tm__pg_int(&a, now);
  tm__pg_int(&a, until);
  tm__pg_int(&a, bounded(limit));
  tm_status status = tm__pg_outbox_next(c, &due, err);
  if (status != TM_OK || due == 0 || due > now) return status;
  status = tm__pg_write(c, &t.work, err);
  if (status == TM_OK && t.full) status = tm__fail_memory(err, "events");
  if (status == TM_OK) status = tm__outgoing_give(&t.batch, fn, ud);
  tm__outgoing_free(&t.batch);
  return status;
}

/* ---- changing one; the head is locked, and the conversation's oldest is due afterwards ---- */

typedef struct change {
  tm_pg_work work;
  tm_pg_sql which;
  const tm_pg_args *args;
  const tm_outgoing *event;
  int64_t at;
  bool before; /* those behind it wait for it from now on */
  int64_t changed;
} change;

static void add_key(tm_pg_args *a, const tm_outgoing *e) {
  tm__pg_text(a, e->conversation);
  tm__pg_int(a, e->revision);
  tm__pg_int(a, e->index);
}

static bool send_change(tm_pg_work *w, PGconn *pg) {
  change *ch = (change *)(void *)w;
  tm_pg_args head = {0}, due = {0}, key = {0};
  ch->changed = 0;
  add_key(&key, ch->event);
  tm__pg_text(&head, ch->event->conversation);
  tm__pg_text(&due, ch->event->conversation);
  tm__pg_int(&due, ch->at > 0 ? ch->at : 1);
  return tm__pg_send(pg, TM_PG_LOCK_HEAD, &head) && tm__pg_send(pg, ch->which, ch->args) &&
         (!ch->before || tm__pg_send(pg, TM_PG_PUT_BEFORE, &key)) &&
         tm__pg_send(pg, TM_PG_ARM, &due);
}

static void see_changed(tm_pg_work *w, size_t index, PGresult *r) {
  change *ch = (change *)(void *)w;
  if (index == 1) ch->changed = strtoll(PQcmdTuples(r), NULL, 10);
}

static tm_status run(tm_store_conn *c, tm_pg_sql which, const tm_pg_args *a,
                     const tm_outgoing *event, int64_t at, tm_error *err) {
  change ch = {.work = {"change an event", send_change, see_changed},
               .which = which,
               .args = a,
               .event = event,
               .at = at,
               .before = which == TM_PG_PUT_EVENT && event->dead_at == 0};
  tm_status status = tm__pg_write(c, &ch.work, err);
  return status == TM_OK && ch.changed == 0 ? tm__outgoing_conflict(event, err) : status;
}

static bool is_possible(const tm_outgoing *e) {
  return tm__pg_is_text(tm__slice(e->conversation)) && tm__pg_is_text(tm__slice(e->tenant));
}

tm_status tm__pg_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                               int64_t at, tm_error *err) {
  tm_pg_args a = {0};
  if (!is_possible(event)) return tm__outgoing_conflict(event, err);
  add_key(&a, event);
  tm__pg_int(&a, event->attempts);
  if (outcome == TM_OUTCOME_DELIVERED) {
    tm__pg_int(&a, event->dead_at);
    return run(c, TM_PG_DROP_EVENT, &a, event, at, err);
  }
  tm__pg_int(&a, outcome == TM_OUTCOME_AGAIN);
  tm__pg_int(&a, outcome == TM_OUTCOME_LATER ? at : 0);
  tm__pg_int(&a, outcome == TM_OUTCOME_DEAD ? at : 0);
  tm__pg_int(&a, outcome == TM_OUTCOME_AGAIN ? 0 : event->attempts);
  tm__pg_bytes(&a, tm__slice(event->note));
  return run(c, TM_PG_SETTLE_EVENT, &a, event, at, err);
}

/* ---- copying, other bodies ---- */

static void add_body(tm_pg_args *a, const tm_outgoing *e) {
  tm__pg_int(a, e->flags);
  tm__pg_bytes(a, e->body.ptr != NULL ? e->body : TM_S(""));
}

tm_status tm__pg_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_pg_args a = {0};
  if (tm__outgoing_check(event, c->store->record_bytes_max, err) != TM_OK) return TM_ETOOLARGE;
  if (!is_possible(event)) return tm__outgoing_conflict(event, err);
  add_key(&a, event);
  tm__pg_text(&a, event->tenant);
  tm__pg_int(&a, event->created);
  tm__pg_int(&a, event->dead_at);
  tm__pg_int(&a, event->attempts);
  tm__pg_bytes(&a, tm__slice(event->note));
  add_body(&a, event);
  return run(c, TM_PG_PUT_EVENT, &a, event, event->due_at > 0 ? event->due_at : event->created,
             err);
}

tm_status tm__pg_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_pg_args a = {0};
  if (tm__outgoing_check(event, c->store->record_bytes_max, err) != TM_OK) return TM_ETOOLARGE;
  if (!is_possible(event)) return TM_OK;
  add_key(&a, event);
  add_body(&a, event);
  return tm__pg_write_one(c, TM_PG_REWRITE_EVENT, &a, NULL, "write an event anew", err);
}
