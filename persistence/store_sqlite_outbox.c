/* store_sqlite_outbox.c - events to be delivered. */
#include "persistence/outgoing.h"
#include "persistence/store_sqlite.h"

/* ---- reading ---- */

static tm_status fill(tm_store_conn *c, sqlite3_stmt *st, tm_outgoing_batch *b, tm_error *err) {
  int rc = SQLITE_DONE;
  tm_status status = tm__outgoing_read(b, st, &rc, err);
  return status != TM_OK || rc == SQLITE_DONE ? status
                                              : tm__sqlite_conn_fail(c, rc, "read events", err);
}

tm_status tm__sqlite_outbox_next(tm_store_conn *c, int64_t *out, tm_error *err) {
  sqlite3_stmt *st;
  *out = 0;
  tm_status status = tm__sqlite_statement(c, TM_SQL_NEXT_EVENT, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_step(st);
  if (rc == SQLITE_ROW)
    *out = sqlite3_column_int64(st, 0);
  else if (rc != SQLITE_DONE)
    status = tm__sqlite_conn_fail(c, rc, "find the next event", err);
  sqlite3_reset(st);
  return status;
}

/* Lists are read in pieces, as those of conversations. */
#define PIECE 16

static tm_status list_piece(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_batch *b,
                            tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_LIST_EVENTS, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind(st, 1, f->tenant);
  rc |= sqlite3_bind_int(st, 2, f->dead);
  rc |= sqlite3_bind_int64(st, 3, f->limit < PIECE ? (int64_t)f->limit : PIECE);
  rc |= tm__sqlite_bind_text(st, 4, f->before);
  rc |= sqlite3_bind_int64(st, 5, f->before_revision);
  rc |= sqlite3_bind_int(st, 6, f->before_index);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind a list of events", err);
  return fill(c, st, b, err);
}

tm_status tm__sqlite_outbox_list(tm_store_conn *c, const tm_outgoing_filter *f, tm_outgoing_fn fn,
                                 void *ud, tm_error *err) {
  tm_outgoing_filter rest = *f;
  tm_status status = TM_OK;
  while (status == TM_OK && rest.limit > 0) {
    tm_outgoing_batch b = {0};
    status = list_piece(c, &rest, &b, err);
    if (status == TM_OK) status = tm__outgoing_give(&b, fn, ud);
    rest.limit = b.count < PIECE ? 0 : rest.limit - b.count;
    if (b.count > 0) {
      const tm_outgoing *last = &b.items[b.count - 1];
      memcpy(rest.before, last->conversation, sizeof(rest.before));
      rest.before_revision = last->revision;
      rest.before_index = last->index;
    }
    tm__outgoing_free(&b);
  }
  return status;
}

/* ---- writing; within a transaction ---- */

static int bind_key(sqlite3_stmt *st, const tm_outgoing *e) {
  int rc = tm__sqlite_bind_text(st, 1, e->conversation);
  rc |= sqlite3_bind_int64(st, 2, e->revision);
  return rc | sqlite3_bind_int(st, 3, e->index);
}

static tm_status add(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_PUT_EVENT, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_key(st, e);
  rc |= tm__sqlite_bind_text(st, 4, e->tenant);
  rc |= sqlite3_bind_int64(st, 5, e->created);
  rc |= sqlite3_bind_int64(st, 6, e->dead_at);
  rc |= sqlite3_bind_int(st, 7, e->attempts);
  rc |= tm__sqlite_bind_text(st, 8, e->note);
  rc |= sqlite3_bind_int64(st, 9, e->flags);
  rc |= tm__sqlite_bind_body(st, 10, e->flags, e->body);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind an event", err);
  return tm__sqlite_run(c, st, "keep an event", err);
}

static tm_status arm(tm_store_conn *c, const char *conversation, int64_t at, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_ARM, &st, err);
  if (status != TM_OK) return status;
  int rc = tm__sqlite_bind_text(st, 1, conversation);
  rc |= sqlite3_bind_int64(st, 2, at > 0 ? at : 1);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind an event", err);
  return tm__sqlite_run(c, st, "make an event due", err);
}

tm_status tm__sqlite_add_events(tm_store_conn *c, const tm_commit *item, tm_error *err) {
  tm_outgoing event;
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < item->event_count; i++) {
    tm__outgoing_of(&event, item, i);
    status = add(c, &event, err);
  }
  return status == TM_OK ? arm(c, item->head.id, item->events[0].created, err) : status;
}

/* ---- taking ---- */

static tm_status find_due(tm_store_conn *c, int64_t now, size_t limit, tm_outgoing_batch *b,
                          tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_EVENTS_DUE, &st, err);
  if (status != TM_OK) return status;
  int rc = sqlite3_bind_int64(st, 1, now);
  rc |= sqlite3_bind_int64(st, 2, limit > INT32_MAX ? INT32_MAX : (int64_t)limit);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind the time", err);
  return fill(c, st, b, err);
}

static tm_status lease(tm_store_conn *c, tm_outgoing *e, int64_t until, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_LEASE_EVENT, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_key(st, e);
  rc |= sqlite3_bind_int64(st, 4, until);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind an event", err);
  e->due_at = until;
  e->attempts++;
  return tm__sqlite_run(c, st, "take an event", err);
}

/* Nothing is written when nothing is due. */
static tm_status take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                      tm_outgoing_batch *b, tm_error *err) {
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = find_due(c, now, limit, b, err);
  for (size_t i = 0; status == TM_OK && i < b->count; i++)
    status = lease(c, &b->items[i], until, err);
  return tm__sqlite_end(c, status, err);
}

tm_status tm__sqlite_outbox_take(tm_store_conn *c, int64_t now, int64_t until, size_t limit,
                                 tm_outgoing_fn fn, void *ud, tm_error *err) {
  tm_outgoing_batch b = {0};
  tm_status status = take(c, now, until, limit, &b, err);
  if (status == TM_OK) status = tm__outgoing_give(&b, fn, ud);
  tm__outgoing_free(&b);
  return status;
}

/* ---- settling ---- */

static tm_status drop(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_DROP_EVENT, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_key(st, e);
  rc |= sqlite3_bind_int(st, 4, e->attempts);
  rc |= sqlite3_bind_int64(st, 5, e->dead_at);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind an event", err);
  return tm__sqlite_run(c, st, "remove an event", err);
}

static tm_status change(tm_store_conn *c, const tm_outgoing *e, tm_outcome outcome, int64_t at,
                        tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_SETTLE_EVENT, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_key(st, e);
  rc |= sqlite3_bind_int(st, 4, e->attempts);
  rc |= sqlite3_bind_int(st, 5, outcome == TM_OUTCOME_AGAIN);
  rc |= sqlite3_bind_int64(st, 6, outcome == TM_OUTCOME_LATER ? at : 0);
  rc |= sqlite3_bind_int64(st, 7, outcome == TM_OUTCOME_DEAD ? at : 0);
  rc |= sqlite3_bind_int(st, 8, outcome == TM_OUTCOME_AGAIN ? 0 : e->attempts);
  rc |= tm__sqlite_bind_text(st, 9, e->note);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind an event", err);
  return tm__sqlite_run(c, st, "settle an event", err);
}

static tm_status settle(tm_store_conn *c, const tm_outgoing *e, tm_outcome outcome, int64_t at,
                        tm_error *err) {
  tm_status status =
      outcome == TM_OUTCOME_DELIVERED ? drop(c, e, err) : change(c, e, outcome, at, err);
  if (status == TM_OK && sqlite3_changes(c->db) == 0) return tm__outgoing_conflict(e, err);
  return status == TM_OK ? arm(c, e->conversation, at, err) : status;
}

tm_status tm__sqlite_outbox_settle(tm_store_conn *c, const tm_outgoing *event, tm_outcome outcome,
                                   int64_t at, tm_error *err) {
  tm_status status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  return tm__sqlite_end(c, settle(c, event, outcome, at, err), err);
}

/* ---- copying, other bodies ---- */

/* It comes before one that is due already. */
static tm_status disarm(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__sqlite_statement(c, TM_SQL_DISARM, &st, err);
  if (status != TM_OK) return status;
  int rc = bind_key(st, e);
  if (rc != SQLITE_OK) return tm__sqlite_conn_fail(c, rc, "bind an event", err);
  return tm__sqlite_run(c, st, "put an event in order", err);
}

static tm_status put(tm_store_conn *c, const tm_outgoing *e, tm_error *err) {
  tm_head head;
  tm_status status = tm__sqlite_head(c, tm__slice(e->conversation), &head, err);
  if (status == TM_ENOTFOUND || (status == TM_OK && head.revision < e->revision))
    return tm__outgoing_conflict(e, err);
  if (status == TM_OK) status = add(c, e, err);
  if (status == TM_OK && e->dead_at == 0) status = disarm(c, e, err);
  return status == TM_OK ? arm(c, e->conversation, e->due_at > 0 ? e->due_at : e->created, err)
                         : status;
}

tm_status tm__sqlite_outbox_put(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  tm_status status = tm__outgoing_check(event, c->store->record_bytes_max, err);
  if (status == TM_OK) status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  return tm__sqlite_end(c, put(c, event, err), err);
}

tm_status tm__sqlite_outbox_rewrite(tm_store_conn *c, const tm_outgoing *event, tm_error *err) {
  sqlite3_stmt *st;
  tm_status status = tm__outgoing_check(event, c->store->record_bytes_max, err);
  if (status == TM_OK) status = tm__sqlite_begin(c, err);
  if (status != TM_OK) return status;
  status = tm__sqlite_statement(c, TM_SQL_REWRITE_EVENT, &st, err);
  if (status == TM_OK) {
    int rc = bind_key(st, event);
    rc |= sqlite3_bind_int64(st, 4, event->flags);
    rc |= tm__sqlite_bind_body(st, 5, event->flags, event->body);
    status = rc == SQLITE_OK ? tm__sqlite_run(c, st, "write an event anew", err)
                             : tm__sqlite_conn_fail(c, rc, "bind an event", err);
  }
  return tm__sqlite_end(c, status, err);
}
