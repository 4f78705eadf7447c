/* store_redis_purge.c - what goes, and bodies that are written anew. A conversation's head and rows
 * are one slot's and go at once (the server frees large ones aside); what pointed at it goes behind
 * that, and what a crash leaves of it is a lie that sweeps find. */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

/* Its hints, and the promise of its start key. */
static tm_status forget(tm_store_conn *c, const tm_head *h, uint64_t start_key, tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  for (int which = 0; which < TM_LISTS + 2; which++) {
    if (which < TM_LISTS)
      tm__redis_list_of(&k, c->store, (tm_redis_list)which, h);
    else
      tm__redis_times_key(&k, c->store, which == TM_LISTS ? TM_TIMES_DUE : TM_TIMES_ENDED);
    tm__redis_command(c, "ZREM", 2);
    tm__redis_key_arg(c, &k);
    tm__redis_text(c, h->id);
  }
  tm__redis_part_events(c, h->id);
  if (start_key != 0) {
    tm__redis_start_key_of(&k, c->store, tm__slice(h->tenant), start_key);
    tm__redis_run(c, TM_REDIS_RELEASE, 1, 2);
    tm__redis_key_arg(c, &k);
    tm__redis_text(c, "conversation");
    tm__redis_text(c, h->id);
  }
  status = tm__redis_flush(c, err);
  return status == TM_OK ? tm__redis_skip(c, c->awaited, err) : status;
}

tm_status tm__redis_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                          tm_error *err) {
  redisReply *reply;
  tm_head head;
  uint64_t key;
  int64_t answer;
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_ask_head(c, id);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  status = tm__redis_decode_head(c->store, reply, id, &head, err);
  (void)tm__redis_decode_start(reply, &key, &answer);
  freeReplyObject(reply);
  if (status == TM_ENOTFOUND) return tm__redis_not_found("conversation", err);
  bool damaged = status == TM_ECORRUPT; /* whose it was its hints and its key say by themselves */
  if (damaged) key = 0;
  if (status == TM_OK || damaged) status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_run(c, TM_REDIS_PURGE, 3, 2);
  tm__redis_head_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  tm__redis_rows_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  tm__redis_events_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  if (damaged)
    tm__redis_text(c, "any");
  else
    tm__redis_int(c, expect_revision);
  tm__redis_int(c, undelivered);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool gone = reply->integer == 1;
  freeReplyObject(reply);
  if (gone) return forget(c, &head, key, err);
  return tm__purge_conflict(id, err);
}

/* ---- rewriting ---- */

static void add_rewrite(tm_store_conn *c, const tm_row *row) {
  tm_redis_key k;
  tm__redis_rows_key(&k, c->store, tm__slice(row->conversation));
  tm__redis_run(c, TM_REDIS_REWRITE, 1, 3);
  tm__redis_key_arg(c, &k);
  tm__redis_int(c, row->id);
  tm__redis_int(c, row->flags);
  tm__redis_arg(c, row->body);
}

static tm_status rewrite_from(tm_store_conn *c, const tm_row *rows, size_t count, size_t *done,
                              tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  bool forgot = false;
  for (size_t i = *done; status == TM_OK && i < count; i++)
    add_rewrite(c, &rows[i]);
  if (status == TM_OK && c->awaited > 0) status = tm__redis_flush(c, err);
  while (status == TM_OK && !forgot && *done < count) {
    redisReply *reply;
    status = tm__redis_next(c, &reply, err);
    if (status != TM_OK) break;
    forgot = tm__redis_is_noscript(reply);
    if (!forgot && tm__redis_is_error(reply))
      status = tm__redis_refused(c->store, reply->str, err);
    else if (!forgot)
      ++*done;
    freeReplyObject(reply);
  }
  if (status != TM_OK || !forgot) return status;
  tm__redis_drop(c); /* answers of the rest are under way */
  return tm__redis_ready(c, err);
}

static tm_status check_sizes(const tm_store *s, const tm_row *rows, size_t count, tm_error *err) {
  for (size_t i = 0; i < count; i++)
    if (rows[i].body.len > s->row_max)
      return tm__fail(err, TM_ETOOLARGE, "store.too_large",
                      "row %lld of conversation %s has %zu bytes, more than the store keeps",
                      (long long)rows[i].id, rows[i].conversation, rows[i].body.len);
  return TM_OK;
}

/* What has begun is brought to its end, as with commits: a body that is written twice is the same.
 */
tm_status tm__redis_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err) {
  size_t done = 0;
  int pause_ms = 0;
  bool begun = false;
  if (check_sizes(c->store, rows, count, err) != TM_OK) return TM_ETOOLARGE;
  while (done < count) {
    tm_status status = rewrite_from(c, rows, count, &done, err);
    begun = begun || done > 0;
    if (status != TM_OK && !(begun && tm__redis_pause(c, &pause_ms))) return status;
  }
  return TM_OK;
}
