/* store_redis_commit.c - commits: one script each, on keys of its conversation only, all in one
 * pipeline.
 *
 * When the connection breaks, what was sent and not answered is in doubt: it may have happened, and
 * may still happen while the server has it. So nothing is concluded from what stands there; the
 * same commit is sent again until it is answered. It happens once, because it is a compare-and-set,
 * and its token tells whether it was this one or another host's that made the revision. (A commit
 * of the head alone that others have built on leaves no token; it counts as a conflict, and its
 * host reads the conversation anew.) */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

#define PIPELINE_BYTES ((size_t)4 << 20)
#define PARTED_WAIT    8192 /* bytes of lies that wait for a quiet moment */
#define PATIENCE_MAX   5000

/* ---- one item ---- */

static void finish(tm_redis_work *w, tm_status status) {
  w->done = true;
  w->item->status = status;
  if (status == TM_OK && w->item->row != NULL) w->item->row_id = w->item->head.revision;
}

static void add_commit(tm_store_conn *c, const tm_redis_work *w) {
  const tm_commit *item = w->item;
  tm_slice id = tm__slice(item->head.id);
  char header[TM_REDIS_ROW_HEADER];
  tm_redis_key k;
  size_t events = tm__redis_event_args(item);
  tm__redis_run(c, TM_REDIS_COMMIT, events > 0 ? 3 : 2, 8 + events + tm__redis_head_args(item));
  tm__redis_head_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  tm__redis_rows_key(&k, c->store, id);
  tm__redis_key_arg(c, &k);
  if (events > 0) {
    tm__redis_events_key(&k, c->store, id);
    tm__redis_key_arg(c, &k);
  }
  tm__redis_int(c, item->expect_revision);
  tm__redis_int(c, item->head.revision);
  tm__redis_text(c, w->token);
  tm__redis_text(c, w->again ? "1" : "0");
  if (item->row != NULL) {
    size_t len = tm__redis_row_header(header, item->row, w->token);
    tm__redis_arg_two(c, (tm_slice){header, len}, item->row->body);
  } else {
    tm__redis_text(c, "");
  }
  tm__redis_text(c, item->start_answer && item->row != NULL ? "1" : "0");
  tm__redis_add_events(c, item);
  tm__redis_add_head(c, item);
}

static void add(tm_store_conn *c, tm_redis_work *w) {
  w->again = w->sent;
  w->sent = true;
  bool hinted = w->session && !w->again; /* before the session was reserved */
  w->before = hinted ? 0 : tm__redis_add_hints(c, w->item, true);
  add_commit(c, w);
  w->behind = tm__redis_add_hints(c, w->item, true);
}

static void part(tm_store_conn *c, tm_redis_list which, const tm_head *h, tm_slice was,
                 const char *is) {
  if (was.len > 0 && !tm__slice_is(was, is))
    tm__redis_part(c, which, tm__slice(h->tenant), was, tm__slice(h->id));
}

static void applied(tm_store_conn *c, tm_redis_work *w, const redisReply *r) {
  const tm_head *h = &w->item->head;
  tm_slice tenant = tm__redis_slice(tm__redis_item(r, 3));
  part(c, TM_LIST_STATUS, h, tm__redis_slice(tm__redis_item(r, 1)),
       tm__conversation_status_name(h->status));
  part(c, TM_LIST_FLOW, h, tm__redis_slice(tm__redis_item(r, 2)), h->flow);
  w->moved = tenant.len > 0 && !tm__slice_is(tenant, h->tenant);
  if (w->moved)
    tm__redis_part_all(c, h);
  else
    tm__redis_know(c, h);
  finish(w, TM_OK);
}

static void not_applied(tm_store_conn *c, tm_redis_work *w, tm_status status) {
  const tm_head *h = &w->item->head;
  if (w->item->expect_revision == 0) {
    tm__redis_part_all(c, h);
  } else {
    tm_slice tenant = tm__slice(h->tenant), id = tm__slice(h->id);
    tm__redis_part(c, TM_LIST_FLOW, tenant, tm__slice(h->flow), id);
    tm__redis_part(c, TM_LIST_STATUS, tenant, tm__slice(tm__conversation_status_name(h->status)),
                   id);
  }
  finish(w, status);
}

/* What the server refused now, it may have done before: then it stays in doubt. *forgot: it does
 * not know the script. */
static void hear(tm_store_conn *c, tm_redis_work *w, const redisReply *r, bool *forgot,
                 tm_error *err) {
  const redisReply *verdict = tm__redis_item(r, 0);
  bool noscript = tm__redis_is_noscript(r);
  if (noscript) *forgot = true;
  if (noscript && !w->again) w->sent = false;
  if (verdict != NULL && verdict->type == REDIS_REPLY_INTEGER) {
    if (verdict->integer == 1)
      applied(c, w, r);
    else
      not_applied(c, w, TM_ECONFLICT);
  } else if (!noscript) {
    tm_status status =
        tm__redis_refused(c->store, tm__redis_is_error(r) ? r->str : "what no commit answers", err);
    if (w->again) return;
    w->sent = false;
    not_applied(c, w, status);
  }
}

static tm_status hear_all(tm_store_conn *c, tm_redis_work *works, size_t from, size_t to,
                          bool *forgot, tm_error *err) {
  tm_status status = TM_OK;
  for (size_t i = from; i < to && status == TM_OK; i++) {
    tm_redis_work *w = &works[i];
    redisReply *reply = NULL;
    if (w->done) continue;
    if (c->redis != NULL) (void)tm__redis_skip(c, w->before, err);
    status = c->redis != NULL ? tm__redis_next(c, &reply, err)
                              : tm__redis_unreachable(c->store, "it went away", err);
    if (reply != NULL) hear(c, w, reply, forgot, err);
    freeReplyObject(reply);
    if (c->redis != NULL) (void)tm__redis_skip(c, w->behind, NULL);
  }
  return status;
}

/* ---- all items ---- */

/* Sends what is not done yet, some megabytes at a time. */
static tm_status pass(tm_store_conn *c, tm_redis_work *works, size_t count, bool *forgot,
                      tm_error *err) {
  tm_status status = TM_OK;
  *forgot = false;
  for (size_t from = 0, to = 0; from < count && status == TM_OK && !*forgot; from = to) {
    status = tm__redis_ready(c, err);
    if (status != TM_OK) return status;
    for (to = from; to < count && c->out.len < PIPELINE_BYTES; to++)
      if (!works[to].done) add(c, &works[to]);
    if (c->awaited == 0) continue;
    status = tm__redis_flush(c, err);
    if (status == TM_OK) status = hear_all(c, works, from, to, forgot, err);
  }
  return status;
}

typedef struct tally {
  size_t open, doubtful, applied;
} tally;

static tally count_up(const tm_redis_work *works, size_t count) {
  tally t = {0};
  for (size_t i = 0; i < count; i++) {
    t.open += !works[i].done;
    t.doubtful += !works[i].done && works[i].sent;
    t.applied += works[i].done && works[i].item->status == TM_OK;
  }
  return t;
}

static void fail_open(tm_redis_work *works, size_t count, tm_status status) {
  for (size_t i = 0; i < count; i++)
    if (!works[i].done) finish(&works[i], status);
}

/* Until every item has its answer; an item that nobody sent is given up as soon as sending fails.
 */
static tm_status pursue(tm_store_conn *c, tm_redis_work *works, size_t count, tm_error *err) {
  int pause_ms = 0;
  for (;;) {
    bool forgot;
    tm_error why = {0};
    tm_status status = pass(c, works, count, &forgot, &why);
    if (status == TM_OK && forgot) status = tm__redis_load(c, &why);
    if (why.status != TM_OK) *err = why;
    tally t = count_up(works, count);
    if (t.open == 0) return why.status == TM_ECORRUPT ? TM_OK : why.status; /* a key, not all */
    if (status == TM_OK && forgot) continue;
    if (t.doubtful == 0) {
      fail_open(works, count, why.status);
      return why.status;
    }
    if (c->patience_ms * 2 <= PATIENCE_MAX) c->patience_ms *= 2;
    if (tm__redis_pause(c, &pause_ms)) continue;
    fail_open(works, count, TM_EUNAVAILABLE);
    return tm__redis_outcome_unknown(c->store, err);
  }
}

/* ---- around it ---- */

static tm_status prepare(tm_store_conn *c, tm_redis_work *works, tm_commit *const *items,
                         size_t count, tm_error *err) {
  for (size_t i = 0; i < count; i++) {
    tm_redis_work *w = &works[i];
    uint64_t token;
    tm__random_bytes(&token, sizeof(token));
    (void)snprintf(w->token, sizeof(w->token), "%016llx", (unsigned long long)token);
    w->item = items[i];
    items[i]->row_id = 0;
    tm_status status = tm__commit_check(items[i], c->store->row_max);
    if (status != TM_OK) finish(w, status);
  }
  tm_status status = tm__redis_reserve_keys(c, works, count, err);
  return status == TM_OK ? tm__redis_reserve_sessions(c, works, count, err) : status;
}

/* What was reserved for a commit that failed is free again, if the server still hears it. */
static void release(tm_store_conn *c, const tm_redis_work *works, size_t count) {
  bool any = false;
  for (size_t i = 0; i < count; i++) {
    bool failed = works[i].done && works[i].item->status != TM_OK && !works[i].sent;
    failed = failed || (works[i].done && works[i].item->status == TM_ECONFLICT);
    if (!failed || (!works[i].key && !works[i].session)) continue;
    if (!any && tm__redis_ready(c, NULL) != TM_OK) return;
    any = true;
    if (works[i].key) tm__redis_release_key(c, &works[i]);
    if (works[i].session) tm__redis_release_session(c, &works[i]);
  }
  if (any && tm__redis_flush(c, NULL) == TM_OK) (void)tm__redis_skip(c, c->awaited, NULL);
}

static void mend_moved(tm_store_conn *c, const tm_redis_work *works, size_t count) {
  for (size_t i = 0; i < count; i++) {
    tm_head head;
    if (works[i].moved &&
        tm__redis_head(c, tm__slice(works[i].item->head.id), &head, NULL) == TM_OK)
      (void)tm__redis_hint_heads(c, &head, 1, NULL);
  }
}

tm_status tm__redis_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err) {
  tm_error why = {0};
  tm_redis_work *works = calloc(count + 1, sizeof(*works));
  if (works == NULL) {
    for (size_t i = 0; i < count; i++)
      items[i]->status = TM_ENOMEM;
    return tm__fail_memory(err, "a commit");
  }
  tm_status status = prepare(c, works, items, count, &why);
  if (status == TM_OK)
    status = pursue(c, works, count, &why);
  else
    fail_open(works, count, status);
  c->patience_ms = c->store->timeout_ms;
  if (count_up(works, count).applied > 0) status = TM_OK;
  release(c, works, count);
  mend_moved(c, works, count);
  if (c->parted.len > PARTED_WAIT) (void)tm__redis_settle_parted(c, NULL);
  free(works);
  if (err != NULL) *err = why;
  return status;
}
