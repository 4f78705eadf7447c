/* store_file_outbox.c - events to be delivered: a small file each, which a commit writes in the
 * same group as its frame, and which every change of one writes anew. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "persistence/outgoing.h"
#include "persistence/store_file.h"

/* ---- names and contents ---- */

typedef struct event_name {
  tm_file_name name;
  char key[40];
} event_name;

static const tm_file_name *name_of(event_name *n, const tm_outgoing *e) {
  (void)snprintf(n->key, sizeof(n->key), "%lld.%d", (long long)e->revision, e->index);
  n->name = (tm_file_name){TM_FILE_EVENT, tm__slice(e->conversation), tm__slice(n->key)};
  return &n->name;
}

static bool parse_name(tm_outgoing *e, const tm_file_name *name) {
  char key[40];
  if (!tm__copy(key, sizeof(key), name->b) ||
      !tm__copy(e->conversation, sizeof(e->conversation), name->a))
    return false;
  char *dot = NULL;
  e->revision = strtoll(key, &dot, 10);
  if (dot == key || *dot != '.') return false;
  e->index = (int)strtol(dot + 1, &dot, 10);
  return *dot == '\0';
}

static void put_number(tm_buf *b, const char *key, int64_t n) {
  if (n != 0) tm__json_member_int(b, key, n);
}

static void encode(tm_buf *b, const tm_outgoing *e) {
  tm__buf_byte(b, '{');
  tm__file_text(b, "tenant", tm__slice(e->tenant));
  tm__json_member_int(b, "created", e->created);
  put_number(b, "due_at", e->due_at);
  put_number(b, "dead_at", e->dead_at);
  put_number(b, "attempts", e->attempts);
  if (e->note[0] != '\0') tm__file_text(b, "note", tm__slice(e->note));
  put_number(b, "flags", e->flags);
  tm__file_text(b, "body", e->body.ptr != NULL ? e->body : TM_S(""));
  tm__buf_byte(b, '}');
}

/* A member that is a short text; one that is not there is "". */
static bool take_text(tm_slice json, const char *key, char *out, size_t size) {
  bool there;
  tm_buf text = {0};
  bool ok = tm__file_text_decode(json, key, &text, &there) &&
            tm__copy(out, size, there && text.len > 0 ? tm__buf_view(&text) : TM_S(""));
  tm__buf_free(&text);
  return ok;
}

static bool decode(tm_outgoing *e, tm_slice json, tm_buf *body) {
  bool there;
  e->created = tm__json_get_int(json, "created", 0);
  e->due_at = tm__json_get_int(json, "due_at", 0);
  e->dead_at = tm__json_get_int(json, "dead_at", 0);
  e->attempts = (int)tm__json_get_int(json, "attempts", 0);
  e->flags = (uint32_t)tm__json_get_int(json, "flags", 0);
  if (!take_text(json, "tenant", e->tenant, sizeof(e->tenant)) ||
      !take_text(json, "note", e->note, sizeof(e->note)) ||
      !tm__file_text_decode(json, "body", body, &there))
    return false;
  e->body = body->len > 0 ? tm__buf_view(body) : TM_S("");
  return there;
}

/* ---- the index ---- */

static tm_status refuse(tm_store_conn *c, tm_error *err) {
  return tm__file_damaged(err, c->store, "an event makes no sense");
}

tm_status tm__file_event_index(tm_store_conn *c, const tm_file_name *name, tm_slice json,
                               tm_error *err) {
  tm_outgoing e = {.revision = 0};
  tm_buf body = {0};
  tm_status status =
      parse_name(&e, name) && decode(&e, json, &body)
          ? tm__file_do(c, TM_FSQL_PUT_EVENT, err, "siisiiiisib", e.conversation, e.revision,
                        (int64_t)e.index, e.tenant, e.created, e.due_at, e.dead_at,
                        (int64_t)e.attempts, e.note, (int64_t)e.flags, e.body)
          : refuse(c, err);
  tm__buf_free(&body);
  return status;
}

tm_status tm__file_event_unindex(tm_store_conn *c, const tm_file_name *name, tm_error *err) {
  tm_outgoing e = {.revision = 0};
  if (!parse_name(&e, name)) return refuse(c, err);
  return tm__file_do(c, TM_FSQL_DROP_EVENT, err, "sii", e.conversation, e.revision,
                     (int64_t)e.index);
}

/* All rows of `st`, which is then reset. */
static tm_status fill(tm_store_conn *c, sqlite3_stmt *st, tm_outgoing_batch *b, tm_error *err) {
  int rc = SQLITE_DONE;
  tm_status status = tm__outgoing_read(b, st, &rc, err);
  return status != TM_OK || rc == SQLITE_DONE ? status
                                              : tm__file_sql_conn_fail(c, rc, "use it", err);
}

static int64_t limit_of(size_t limit) {
  return limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
}

tm_status tm__file_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  *out = 0;
  tm_status status = tm__file_bind(c, TM_FSQL_NEXT_EVENT, &st, err, "");
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) *out = sqlite3_column_int64(st, 0);
  sqlite3_reset(st);
  return TM_OK;
}

#define PIECE 16 /* of a list: nothing is held while the caller works on it */

tm_status tm__file_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                               void *ud, tm_error *err) {
  tm_outgoing_filter rest = *f;
  tm_status status = TM_OK;
  for (size_t count = PIECE; status == TM_OK && count == PIECE && rest.limit > 0;) {
    sqlite3_stmt *st;
    tm_outgoing_batch b = {0};
    status = tm__file_bind(c, TM_FSQL_LIST_EVENTS, &st, err, "tiisii", rest.tenant,
                           (int64_t)rest.dead, (int64_t)(rest.limit < PIECE ? rest.limit : PIECE),
                           rest.before, rest.before_revision, (int64_t)rest.before_index);
    if (status == TM_OK) status = fill(c, st, &b, err);
    count = b.count;
    if (count > 0) {
      const tm_outgoing *last = &b.items[count - 1];
      memcpy(rest.before, last->conversation, sizeof(rest.before));
      rest.before_revision = last->revision;
      rest.before_index = last->index;
      rest.limit -= count;
    }
    if (status == TM_OK) status = tm__outgoing_give(&b, fn, ud);
    tm__outgoing_free(&b);
  }
  return status;
}

/* ---- changing; within begin ---- */

static tm_status keep(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  event_name n;
  tm_buf json = {0};
  encode(&json, e);
  tm_status status = tm__buf_ok(&json)
                         ? tm__file_add_small(c, name_of(&n, e), tm__buf_view(&json), err)
                         : tm__fail_memory(err, "an event");
  tm__buf_free(&json);
  return status;
}

static tm_status drop(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  event_name n;
  return tm__file_add_remove(c, name_of(&n, e), err);
}

/* The oldest of the conversation is due at `at`, unless one is due already. */
static tm_status arm(tm_store_conn *c, const char *conversation, int64_t at, tm_error *err) {
  sqlite3_stmt *st;
  tm_outgoing_batch b = {0};
  tm_status status = tm__file_bind(c, TM_FSQL_UNARMED, &st, err, "s", conversation);
  if (status == TM_OK) status = fill(c, st, &b, err);
  if (status == TM_OK && b.count > 0) {
    tm_outgoing event = b.items[0];
    event.body = b.bytes.len > 0 ? tm__buf_view(&b.bytes) : TM_S("");
    event.due_at = at > 0 ? at : 1;
    status = keep(c, &event, err);
  }
  tm__outgoing_free(&b);
  return status;
}

/* *found: events are before those of the commit; *due: 0 where none of them is. */
static tm_status look_before(tm_store_conn *c, const tm_head *head, bool *found, int64_t *due,
                             tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, TM_FSQL_DUE_BEFORE, &st, err, "si", head->id, head->revision);
  if (status == TM_OK) status = tm__file_step(c, st, found, err);
  if (status != TM_OK) return status;
  *found = *found && sqlite3_column_type(st, 0) != SQLITE_NULL;
  *due = sqlite3_column_int64(st, 0);
  sqlite3_reset(st);
  return TM_OK;
}

tm_status tm__file_add_events(tm_store_conn *c, const tm_commit *item, tm_error *err) {
  tm_outgoing event;
  bool behind = false;
  int64_t due = 0,
          at = item->event_count > 0 && item->events[0].created > 0 ? item->events[0].created : 1;
  tm_status status = look_before(c, &item->head, &behind, &due, err);
  for (size_t i = 0; status == TM_OK && i < item->event_count; i++) {
    tm__outgoing_of(&event, item, i);
    if (i == 0 && !behind) event.due_at = at;
    status = keep(c, &event, err);
  }
  bool idle = status == TM_OK && behind && due == 0; /* the one before them cannot be named */
  return idle ? arm(c, item->head.id, at, err) : status;
}

tm_status tm__file_drop_events(tm_store_conn *c, tm_slice conversation, tm_error *err) {
  sqlite3_stmt *st;
  tm_outgoing_batch b = {0};
  tm_status status = tm__file_bind(c, TM_FSQL_EVENTS_OF, &st, err, "t", conversation);
  if (status == TM_OK) status = fill(c, st, &b, err);
  for (size_t i = 0; status == TM_OK && i < b.count; i++)
    status = drop(c, &b.items[i], err);
  tm__outgoing_free(&b);
  return status;
}

/* ---- taking ---- */

static tm_status lease_all(tm_store_conn *c, tm_outgoing_batch *b, int64_t until, tm_error *err) {
  const char *at = b->bytes.ptr != NULL ? b->bytes.ptr : "";
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < b->count; i++) {
    tm_outgoing *e = &b->items[i];
    e->body.ptr = at;
    at += e->body.len;
    e->due_at = until;
    e->attempts++;
    status = keep(c, e, err);
  }
  return status;
}

/* Nothing is written when nothing is due. */
tm_status tm__file_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                               tm_outgoing_fn fn, void *ud, tm_error *err) {
  sqlite3_stmt *st;
  tm_outgoing_batch b = {0};
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  status = tm__file_bind(c, TM_FSQL_EVENTS_DUE, &st, err, "ii", now, limit_of(limit));
  if (status == TM_OK) status = fill(c, st, &b, err);
  if (status == TM_OK) status = lease_all(c, &b, until, err);
  status = tm__file_finish(c, status, err);
  if (status == TM_OK) status = tm__outgoing_give(&b, fn, ud);
  tm__outgoing_free(&b);
  return status;
}

/* ---- settling, copying, other bodies ---- */

/* The event as it is, its body in `b`; TM_ECONFLICT when there is none. */
static tm_status find(tm_store_conn *c, const tm_outgoing *e, tm_outgoing_batch *b,
                      tm_outgoing *out, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__file_bind(c, TM_FSQL_EVENT, &st, err, "sii", e->conversation, e->revision,
                                   (int64_t)e->index);
  if (status == TM_OK) status = fill(c, st, b, err);
  if (status != TM_OK) return status;
  if (b->count == 0) return tm__outgoing_conflict(e, err);
  *out = b->items[0];
  out->body = b->bytes.len > 0 ? tm__buf_view(&b->bytes) : TM_S("");
  return TM_OK;
}

static tm_status change(tm_store_conn *c, tm_outgoing *have, const tm_outgoing *e,
                        tm_outcome outcome, int64_t at, tm_error *err) {
  if ((have->dead_at != 0) != (outcome == TM_OUTCOME_AGAIN)) return tm__outgoing_conflict(e, err);
  memcpy(have->note, e->note, sizeof(have->note));
  if (outcome == TM_OUTCOME_AGAIN) have->attempts = 0;
  have->dead_at = outcome == TM_OUTCOME_DEAD ? at : 0;
  have->due_at = outcome == TM_OUTCOME_LATER ? at : 0;
  return keep(c, have, err);
}

static tm_status settle(tm_store_conn *c, const tm_outgoing *e, tm_outcome outcome, int64_t at,
                        tm_error *err) {
  tm_outgoing have = {.revision = 0};
  tm_outgoing_batch b = {0};
  tm_status status = find(c, e, &b, &have, err);
  bool goes = outcome == TM_OUTCOME_DELIVERED;
  if (status == TM_OK && (have.attempts != e->attempts || (goes && have.dead_at != e->dead_at)))
    status = tm__outgoing_conflict(e, err);
  if (status == TM_OK) status = goes ? drop(c, e, err) : change(c, &have, e, outcome, at, err);
  tm__outgoing_free(&b);
  return status == TM_OK ? arm(c, e->conversation, at, err) : status;
}

tm_status tm__file_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                 int64_t at, tm_error *err) {
  tm_status status = tm__file_begin(c, err);
  if (status != TM_OK) return status;
  return tm__file_finish(c, settle(c, event, outcome, at, err), err);
}

/* It comes before one that is due already. */
static tm_status disarm(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  sqlite3_stmt *st;
  tm_outgoing_batch b = {0};
  tm_status status = tm__file_bind(c, TM_FSQL_ARMED_BEHIND, &st, err, "sii", e->conversation,
                                   e->revision, (int64_t)e->index);
  if (status == TM_OK) status = fill(c, st, &b, err);
  if (status == TM_OK && b.count > 0) {
    tm_outgoing event = b.items[0];
    event.body = b.bytes.len > 0 ? tm__buf_view(&b.bytes) : TM_S("");
    event.due_at = 0;
    status = keep(c, &event, err);
  }
  tm__outgoing_free(&b);
  return status;
}

static tm_status put(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  tm_file_entry entry = {.found = false};
  tm_outgoing event = *e;
  event.due_at = 0;
  tm_status status = tm__file_entry(c, tm__slice(e->conversation), &entry, err);
  if (status == TM_OK && (!entry.found || entry.state.head.revision < e->revision))
    return tm__outgoing_conflict(e, err);
  if (status == TM_OK) status = keep(c, &event, err);
  if (status == TM_OK && e->dead_at == 0) status = disarm(c, e, err);
  return status == TM_OK ? arm(c, e->conversation, e->due_at > 0 ? e->due_at : e->created, err)
                         : status;
}

tm_status tm__file_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_status status = tm__outgoing_check(event, c->store->row_max, err);
  if (status == TM_OK) status = tm__file_begin(c, err);
  return status == TM_OK ? tm__file_finish(c, put(c, event, err), err) : status;
}

static tm_status rewrite(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  tm_outgoing have = {.revision = 0};
  tm_outgoing_batch b = {0};
  tm_status status = find(c, e, &b, &have, err);
  bool gone = status == TM_ECONFLICT;
  if (status == TM_OK) {
    have.flags = e->flags;
    have.body = e->body;
    status = keep(c, &have, err);
  }
  tm__outgoing_free(&b);
  return gone ? TM_OK : status;
}

tm_status tm__file_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_status status = tm__outgoing_check(event, c->store->row_max, err);
  if (status == TM_OK) status = tm__file_begin(c, err);
  return status == TM_OK ? tm__file_finish(c, rewrite(c, event, err), err) : status;
}
