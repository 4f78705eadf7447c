/* store_postgres_purge.c - what goes: purging, sweeping up after it, other bodies for rows. The
 * space is given back by the server's own vacuum. */
#include <stdlib.h>

#include "persistence/store_postgres.h"

#define WRITER_AGE_MS (INT64_C(30) * 24 * 60 * 60 * 1000) /* then it is a dead host's */

/* ---- purging ---- */

typedef struct purging {
  tm_pg_work work;
  const tm_pg_args *purge, *id;
  int64_t gone;
  bool there;
} purging;

/* Who tries an event again, or delivers one, has locked the head: what he did is seen. */
static bool send_purge(tm_pg_work *w, PGconn *pg) {
  const purging *p = (const purging *)(void *)w;
  return tm__pg_send(pg, TM_PG_LOCK_HEAD, p->id) && tm__pg_send(pg, TM_PG_PURGE, p->purge);
}

static void take_purge(tm_pg_work *w, size_t index, PGresult *r) {
  purging *p = (purging *)(void *)w;
  if (index == 0)
    p->there = PQntuples(r) > 0;
  else
    p->gone = tm__pg_get_int(r, 0, 0);
}

/* `expect_revision` -1: any. */
static tm_status drop_head(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                           tm_error *err) {
  tm_pg_args purge = {0}, name = {0};
  purging p = {{"purge a conversation", send_purge, take_purge}, &purge, &name, 0, false};
  tm__pg_bytes(&purge, id);
  tm__pg_int(&purge, expect_revision);
  tm__pg_int(&purge, c->store->now_ms(c->store->now_ud));
  tm__pg_int(&purge, undelivered);
  tm__pg_bytes(&name, id);
  tm_status status = tm__pg_write(c, &p.work, err);
  if (status != TM_OK || p.gone > 0) return status;
  if (!p.there) return tm__pg_not_found(err, "conversation");
  return tm__purge_conflict(id, err);
}

static bool is_damaged(tm_store_conn *c, tm_slice id) {
  tm_head h;
  tm_error why = {.status = TM_OK};
  return tm__pg_head(c, id, &h, &why) == TM_ECORRUPT && strcmp(why.code, "journal.damaged") == 0;
}

tm_status tm__pg_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                       tm_error *err) {
  if (!tm__pg_is_text(id)) return tm__pg_not_found(err, "conversation");
  tm_slice text = id.ptr != NULL ? id : TM_S("");
  int64_t expect = expect_revision > 0 ? expect_revision : 0; /* 0: none has it */
  tm_status status = drop_head(c, text, expect, undelivered, err);
  if (status != TM_ECONFLICT || !is_damaged(c, text)) return status;
  return drop_head(c, text, -1, undelivered, err);
}

/* ---- sweeping ---- */

typedef struct sweeping { /* rows of one purged conversation */
  tm_pg_work work;
  char id[TM_ID_SIZE];
  int64_t limit, rows;
} sweeping;

static void take_id(tm_pg_work *w, size_t index, PGresult *r) {
  sweeping *s = (sweeping *)(void *)w;
  (void)index;
  s->id[0] = '\0';
  if (PQntuples(r) > 0) (void)tm__pg_get_text(r, 0, 0, s->id, sizeof(s->id));
}

static bool send_id(tm_pg_work *w, PGconn *pg) {
  const tm_pg_args none = {0};
  (void)w;
  return tm__pg_send(pg, TM_PG_NEXT_PURGED, &none);
}

/* Who makes a conversation of that name anew has the lock on its mark, or waits for ours; then the
 * mark is gone, and what we would remove is his. */
static bool send_rows(tm_pg_work *w, PGconn *pg) {
  const sweeping *s = (const sweeping *)(void *)w;
  tm_pg_args id = {0}, rows = {0};
  tm__pg_text(&id, s->id);
  tm__pg_text(&rows, s->id);
  tm__pg_int(&rows, s->limit);
  return tm__pg_send(pg, TM_PG_LOCK_PURGED, &id) && tm__pg_send(pg, TM_PG_SWEEP_ROWS, &rows) &&
         tm__pg_send(pg, TM_PG_DROP_PURGED, &id);
}

static void take_rows(tm_pg_work *w, size_t index, PGresult *r) {
  if (index == 1) ((sweeping *)(void *)w)->rows = tm__pg_get_int(r, 0, 0);
}

static tm_status sweep_rows(tm_store_conn *c, int64_t limit, bool *more, tm_error *err) {
  const tm_pg_args none = {0};
  int64_t left = 0;
  sweeping s = {{"look for purged conversations", send_id, take_id}, "", limit, 0};
  tm_status status = tm__pg_write(c, &s.work, err);
  if (status != TM_OK || s.id[0] == '\0') return status;
  s.work = (tm_pg_work){"remove rows of a purged conversation", send_rows, take_rows};
  status = tm__pg_write(c, &s.work, err);
  if (status == TM_OK)
    status = tm__pg_write_one(c, TM_PG_ANY_PURGED, &none, &left, "look for more", err);
  *more = *more || left > 0;
  return status;
}

static tm_status sweep_keys(tm_store_conn *c, int64_t now, int64_t limit, bool *more,
                            tm_error *err) {
  tm_pg_args a = {0};
  int64_t count = 0;
  tm__pg_int(&a, now - TM_KEY_AGE_MS);
  tm__pg_int(&a, limit);
  tm_status status =
      tm__pg_write_one(c, TM_PG_SWEEP_KEYS, &a, &count, "forget old start keys", err);
  *more = *more || count >= limit;
  return status;
}

static tm_status sweep_writers(tm_store_conn *c, int64_t now, tm_error *err) {
  tm_pg_args a = {0};
  tm__pg_int(&a, now - WRITER_AGE_MS);
  return tm__pg_write_one(c, TM_PG_SWEEP_WRITERS, &a, NULL, "forget dead writers", err);
}

tm_status tm__pg_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  int64_t now = c->store->now_ms(c->store->now_ud);
  int64_t rows = limit < 1 ? 1 : limit > INT32_MAX ? INT32_MAX : (int64_t)limit;
  *more = false;
  tm_status status = sweep_rows(c, rows, more, err);
  if (status == TM_OK) status = sweep_keys(c, now, rows, more, err);
  if (status == TM_OK) status = sweep_writers(c, now, err);
  return status;
}

/* ---- other bodies ---- */

typedef struct rewriting {
  tm_pg_work work;
  const tm_row *rows;
  size_t count;
} rewriting;

static bool send_rewrite(tm_pg_work *w, PGconn *pg) {
  const rewriting *r = (const rewriting *)(void *)w;
  for (size_t i = 0; i < r->count; i++) {
    const tm_row *row = &r->rows[i];
    tm_pg_args a = {0};
    tm__pg_text(&a, row->conversation);
    tm__pg_int(&a, row->id);
    tm__pg_int(&a, row->flags);
    tm__pg_bytes(&a, row->body.ptr != NULL ? row->body : TM_S(""));
    if (!tm__pg_send(pg, TM_PG_REWRITE, &a)) return false;
  }
  return true;
}

static size_t largest(const tm_row *rows, size_t count) {
  size_t most = 0;
  for (size_t i = 0; i < count; i++)
    if (rows[i].body.len > most) most = rows[i].body.len;
  return most;
}

tm_status tm__pg_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err) {
  rewriting r = {{"write bodies anew", send_rewrite, NULL}, rows, count};
  size_t most = c->store->record_bytes_max, bytes = largest(rows, count);
  if (most == 0 || most > TM_ROW_MAX) most = TM_ROW_MAX;
  if (bytes > most)
    return tm__fail(err, TM_ETOOLARGE, "store.too_large",
                    "a row would have %zu bytes, the store takes %zu; nothing was changed", bytes,
                    most);
  return count == 0 ? TM_OK : tm__pg_write(c, &r.work, err);
}
