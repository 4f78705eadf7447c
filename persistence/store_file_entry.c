/* store_file_entry.c - what the index knows of a conversation, and of the redo log. */
#include "persistence/store_file.h"

/* ---- the redo log ---- */

tm_status tm__file_meta_read(tm_store_conn *c, tm_file_redo *out, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  tm_status status = tm__file_bind(c, TM_FSQL_META, &st, err, "");
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found)
    *out = (tm_file_redo){.seq = sqlite3_column_int64(st, 0),
                          .first = sqlite3_column_int64(st, 1),
                          .file = sqlite3_column_int(st, 2),
                          .end = sqlite3_column_int64(st, 3),
                          .upto = sqlite3_column_int64(st, 4),
                          .syncs = sqlite3_column_int64(st, 5)};
  else
    status = tm__file_sql_conn_fail(c, SQLITE_CORRUPT, "read where the redo log ends", err);
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_meta_write(tm_store_conn *c, const tm_file_redo *redo, tm_error *err) {
  return tm__file_do(c, TM_FSQL_SET_META, err, "iiii", redo->seq, redo->first, (int64_t)redo->file,
                     redo->end);
}

/* ---- conversations ---- */

static tm_status tell_damage(tm_store_conn *c, tm_slice id, tm_error *err) {
  sqlite3_stmt *st;
  bool found;
  tm_status status = tm__file_bind(c, TM_FSQL_DAMAGED, &st, err, "t", id);
  if (status == TM_OK) status = tm__file_step(c, st, &found, err);
  if (status != TM_OK) return status;
  if (found) {
    tm_slice what = tm__file_column(st, 1);
    char text[160] = "";
    if (what.len >= sizeof(text)) what.len = sizeof(text) - 1;
    (void)tm__copy(text, sizeof(text), what);
    status = tm__file_log_damaged(err, c->store, id, sqlite3_column_int64(st, 0), text);
  }
  sqlite3_reset(st);
  return status;
}

tm_status tm__file_entry(tm_store_conn *c, tm_slice id, tm_file_entry *out, tm_error *err) {
  sqlite3_stmt *st;
  out->found = false;
  tm_status status = tm__file_bind(c, TM_FSQL_HEAD, &st, err, "t", id);
  if (status == TM_OK) status = tm__file_step(c, st, &out->found, err);
  if (status != TM_OK) return status;
  if (out->found) {
    out->size = sqlite3_column_int64(st, 1);
    out->seq = sqlite3_column_int64(st, 2);
    if (!tm__file_state_decode(&out->state, tm__file_column(st, 0), &c->text))
      status = tm__file_sql_conn_fail(c, SQLITE_CORRUPT, "read a head", err);
  }
  sqlite3_reset(st);
  return status == TM_OK && !out->found ? tell_damage(c, id, err) : status;
}

static tm_status put_key(tm_store_conn *c, const tm_file_state *s, tm_error *err) {
  if (s->start_key == 0) return TM_OK;
  return tm__file_do(c, TM_FSQL_PUT_KEY, err, "sisiii", s->head.tenant, (int64_t)s->start_key,
                     s->head.id, (int64_t)s->start_body, s->start_row, s->start_created);
}

tm_status tm__file_entry_put(tm_store_conn *c, const tm_file_entry *entry,
                             const tm_file_entry *before, tm_error *err) {
  const tm_file_state *s = &entry->state;
  const tm_head *h = &s->head, *b = before != NULL && before->found ? &before->state.head : NULL;
  tm_file_sql which = TM_FSQL_PUT_HEAD;
  sqlite3_stmt *st;
  if (b != NULL && b->status == h->status && b->ended == h->ended &&
      strcmp(b->claim, h->claim) == 0)
    which = b->wake_at == h->wake_at ? TM_FSQL_TOUCH : TM_FSQL_WAKE;
  tm__buf_clear(&c->text);
  tm__file_state_encode(&c->text, s);
  if (!tm__buf_ok(&c->text)) return tm__fail_memory(err, "a head");
  const char *types = which == TM_FSQL_TOUCH  ? "ssiiit"
                      : which == TM_FSQL_WAKE ? "ssiiiti"
                                              : "ssiiitiisisss";
  tm_status status =
      tm__file_bind(c, which, &st, err, types, h->id, h->flow, h->revision, entry->size, entry->seq,
                    tm__buf_view(&c->text), h->wake_at, (int64_t)h->status, h->claim, h->ended,
                    h->tenant, h->session, h->system);
  if (status == TM_OK) status = tm__file_run(c, st, err);
  bool key = b == NULL || before->state.start_row != s->start_row;
  if (status == TM_OK && key) status = put_key(c, s, err);
  return status;
}

tm_status tm__file_entry_damaged(tm_store_conn *c, tm_slice id, int64_t at, const char *what,
                                 tm_error *err) {
  return tm__file_do(c, TM_FSQL_PUT_DAMAGED, err, "tis", id, at, what);
}
