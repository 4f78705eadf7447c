/* store_redis_due.c - what is due, and what has ended: ordered sets of hints. A time that its head
 * does not have is mended where it is found; a due one that is given out is moved ahead, so that
 * other hosts get it only when its holder has not committed by then. */
#include <stdlib.h>

#include "persistence/store_redis.h"

#define PAGE   100
#define PIECE  1000 /* heads that are sorted and given at once */
#define ROUNDS 1000 /* pages in a row that may hold lies only; the next call goes on */

typedef struct search {
  tm_redis_times which;
  int64_t now, until;  /* until 0: nothing is held */
  size_t limit, count; /* found, and not given yet */
  size_t given;
  size_t damaged; /* of both: beside the limit */
  size_t waiting; /* true ones that were passed over */
  tm_head *found;
  size_t room;
} search;

static size_t whole(const search *s) {
  return s->given + s->count - s->damaged;
}

static bool is_true(const search *s, const tm_head *h) {
  int64_t time = tm__redis_time_of(s->which, h);
  return h->revision > 0 && time > 0 && time <= s->now;
}

static tm_status take(tm_store_conn *c, const search *s, size_t limit, redisReply **out,
                      tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_times_key(&k, c->store, s->which);
  tm__redis_run(c, TM_REDIS_TAKE, 1, 4);
  tm__redis_key_arg(c, &k);
  tm__redis_int(c, s->now);
  tm__redis_int(c, s->until == 0 ? (int64_t)(s->given + s->count + s->waiting) : 0);
  tm__redis_int(c, (int64_t)limit);
  tm__redis_int(c, s->until);
  return tm__redis_ask(c, out, err);
}

static bool keep(search *s, const tm_head *h) {
  if (s->count == s->room) {
    size_t room = s->room == 0 ? 64 : s->room * 2;
    tm_head *more = realloc(s->found, room * sizeof(*more));
    if (more == NULL) return false;
    s->found = more;
    s->room = room;
  }
  s->found[s->count++] = *h;
  return true;
}

/* What is true is found, unless events keep it, and so is what is damaged; what is not true comes
 * first in `heads`. */
static tm_status sift(tm_store_conn *c, search *s, tm_head *heads, size_t count, size_t *lies,
                      tm_error *err) {
  bool waits[PAGE] = {false};
  tm_status status =
      s->which == TM_TIMES_ENDED ? tm__redis_events_wait(c, heads, count, waits, err) : TM_OK;
  *lies = 0;
  for (size_t i = 0; status == TM_OK && i < count; i++) {
    bool damaged = heads[i].revision < 0, found = damaged || (is_true(s, &heads[i]) && !waits[i]);
    s->waiting += !found && is_true(s, &heads[i]);
    s->damaged += damaged;
    if (!found && !is_true(s, &heads[i]))
      heads[(*lies)++] = heads[i];
    else if (found && !keep(s, &heads[i]))
      status = tm__fail_memory(err, "deadlines");
  }
  return status;
}

/* One page of hints: what is true is kept, what is not is mended. *seen: how many there were. */
static tm_status look(tm_store_conn *c, search *s, size_t *seen, tm_error *err) {
  redisReply *reply;
  tm_slice ids[PAGE];
  size_t left = s->limit - whole(s), limit = left < PAGE ? left : PAGE, lies = 0;
  tm_head *heads = malloc(PAGE * sizeof(*heads));
  *seen = 0;
  if (heads == NULL) return tm__fail_memory(err, "deadlines");
  tm_status status = take(c, s, limit, &reply, err);
  if (status == TM_OK) {
    for (; *seen < reply->elements / 2; ++*seen)
      ids[*seen] = tm__redis_slice(reply->element[2 * *seen]);
    status = tm__redis_heads(c, ids, *seen, heads, err);
  }
  if (status == TM_OK) status = sift(c, s, heads, *seen, &lies, err);
  freeReplyObject(reply);
  if (status == TM_OK && lies > 0) status = tm__redis_mend_times(c, s->which, heads, lies, err);
  free(heads);
  return status;
}

static int by_due(const void *a, const void *b) {
  const tm_head *x = a, *y = b;
  if (x->wake_at != y->wake_at) return x->wake_at < y->wake_at ? -1 : 1;
  return strcmp(x->id, y->id);
}

static int by_end(const void *a, const void *b) {
  const tm_head *x = a, *y = b;
  if (x->ended != y->ended) return x->ended < y->ended ? -1 : 1;
  return strcmp(x->id, y->id);
}

static tm_status give(search *s, tm_head_fn fn, void *ud) {
  tm_status status = TM_OK;
  if (s->count > 0)
    qsort(s->found, s->count, sizeof(*s->found), s->which == TM_TIMES_DUE ? by_due : by_end);
  for (size_t i = 0; status == TM_OK && i < s->count; i++)
    status = fn(ud, &s->found[i]);
  s->given += s->count;
  s->count = 0;
  return status;
}

/* Of a long list a piece is given before the next is looked for. */
static tm_status run(tm_store_conn *c, search *s, tm_head_fn fn, void *ud, tm_error *err) {
  tm_status status = TM_OK;
  size_t seen = 1, rounds = 0;
  while (status == TM_OK && seen > 0 && rounds < ROUNDS && whole(s) < s->limit) {
    size_t before = s->given + s->count;
    status = look(c, s, &seen, err);
    rounds = s->given + s->count > before ? 0 : rounds + 1;
    if (status == TM_OK && s->count >= PIECE) status = give(s, fn, ud);
  }
  if (status == TM_OK) status = give(s, fn, ud);
  free(s->found);
  return status;
}

tm_status tm__redis_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit, tm_head_fn fn,
                        void *ud, tm_error *err) {
  search s = {
      .which = TM_TIMES_DUE, .now = now, .until = hold_ms > 0 ? now + hold_ms : 0, .limit = limit};
  tm_status status = tm__redis_settle_parted(c, err);
  return status == TM_OK ? run(c, &s, fn, ud, err) : status;
}

tm_status tm__redis_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn, void *ud,
                          tm_error *err) {
  search s = {.which = TM_TIMES_ENDED, .now = before, .limit = limit};
  return run(c, &s, fn, ud, err);
}

/* ---- the earliest ---- */

typedef struct page {
  tm_head heads[PAGE];
  int64_t hints[PAGE];
  size_t count;
} page;

static tm_status read_hints(tm_store_conn *c, page *p, int64_t from, tm_error *err) {
  redisReply *reply;
  tm_slice ids[PAGE];
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_times_key(&k, c->store, TM_TIMES_DUE);
  tm__redis_command(c, "ZRANGE", 4);
  tm__redis_key_arg(c, &k);
  tm__redis_int(c, from);
  tm__redis_int(c, from + PAGE - 1);
  tm__redis_text(c, "WITHSCORES");
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  for (p->count = 0; p->count < reply->elements / 2; p->count++) {
    ids[p->count] = tm__redis_slice(reply->element[2 * p->count]);
    p->hints[p->count] = (int64_t)strtod(reply->element[2 * p->count + 1]->str, NULL);
  }
  status = tm__redis_heads(c, ids, p->count, p->heads, err);
  freeReplyObject(reply);
  return status;
}

/* Hints are never later than what they stand for, but for those that somebody holds. */
tm_status tm__redis_next_due(tm_store_conn *c, int64_t *out, tm_error *err) {
  tm_status status = TM_OK;
  bool more = true;
  *out = 0;
  page *p = malloc(sizeof(*p));
  if (p == NULL) return tm__fail_memory(err, "deadlines");
  for (int64_t from = 0; status == TM_OK && more; from += PAGE) {
    status = read_hints(c, p, from, err);
    more = status == TM_OK && p->count == PAGE;
    for (size_t i = 0; status == TM_OK && i < p->count; i++) {
      int64_t time = p->heads[i].revision > 0 ? p->heads[i].wake_at : 0;
      if (*out != 0 && p->hints[i] >= *out) more = false;
      if (time > 0 && (*out == 0 || time < *out)) *out = time;
    }
  }
  free(p);
  return status;
}
