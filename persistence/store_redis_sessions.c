/* store_redis_sessions.c - sessions are read: one, or an ordered set of them, page by page. */
#include <stdio.h>
#include <stdlib.h>

#include "persistence/store_redis.h"

#define PAGE 100

#define FIELDS 9

static void ask(tm_store_conn *c, tm_redis_name n) {
  static const char *const fields[FIELDS] = {"created",  "look_at", "ended", "flags", "user_id",
                                             "metadata", "tenant",  "id",    "order"};
  tm_redis_key k;
  tm__redis_session_record(&k, c->store, n);
  tm__redis_command(c, "HMGET", 1 + FIELDS);
  tm__redis_key_arg(c, &k);
  for (size_t i = 0; i < FIELDS; i++)
    tm__redis_text(c, fields[i]);
}

static tm_slice field(const redisReply *r, size_t at) {
  return tm__redis_slice(tm__redis_item(r, at));
}

/* As the record has it, which has no number that is written otherwise. */
static bool number(const redisReply *r, size_t at, int64_t *out) {
  char text[24];
  tm_slice stored = field(r, at);
  *out = tm__redis_number(stored);
  (void)snprintf(text, sizeof(text), "%lld", (long long)*out);
  return tm__slice_is(stored, text);
}

/* Is it the record of the session that it lies under, in that order? */
static bool is_its_own(const redisReply *r, const tm_session *s) {
  char order[17];
  tm__redis_session_order(order, s->created);
  return tm__slice_eq(field(r, 6), s->tenant) && tm__slice_eq(field(r, 7), s->id) &&
         tm__slice_is(field(r, 8), order);
}

/* Valid as long as the reply (NULL: the record is none of ours); false: there is none. */
static bool decode(const redisReply *r, tm_redis_name n, tm_session *out) {
  int64_t flags = 0;
  bool any = r == NULL;
  *out = (tm_session){.tenant = n.tenant, .id = n.id};
  for (size_t i = 0; i < FIELDS && !any; i++)
    any = field(r, i).ptr != NULL;
  bool sound = r != NULL && number(r, 0, &out->created) && number(r, 1, &out->look_at) &&
               number(r, 2, &out->ended) && number(r, 3, &flags) && is_its_own(r, out);
  if (sound) {
    out->user_id = field(r, 4);
    out->metadata = field(r, 5);
    tm__session_check(out, flags);
  } else {
    tm__session_spoil(out);
  }
  return any;
}

/* What another program wrote in a record's place is damage to that one. */
static tm_status take_record(tm_store_conn *c, redisReply **out, tm_error *err) {
  tm_error why = {.status = TM_OK};
  tm_status status = tm__redis_take(c, out, &why);
  if (status == TM_ECORRUPT) return TM_OK;
  if (status != TM_OK && err != NULL) *err = why;
  return status;
}

tm_status tm__redis_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                            void *ud, tm_error *err) {
  redisReply *reply = NULL;
  tm_session s;
  tm_redis_name n = {tenant, id};
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  ask(c, n);
  status = tm__redis_flush(c, err);
  if (status == TM_OK) status = take_record(c, &reply, err);
  if (status != TM_OK) return status;
  if (!decode(reply, n, &s))
    status = tm__redis_not_found("session", err);
  else
    status = s.damaged ? tm__session_damaged(&s, c->store->place, err) : fn(ud, &s);
  freeReplyObject(reply);
  return status;
}

typedef struct visit {
  int ended; /* as in the filter */
  int64_t due;
  size_t left; /* of those that are due, without the damaged ones */
  tm_session_fn fn;
  void *ud;
} visit;

static bool wanted(const visit *v, const tm_session *s) {
  if (s->damaged) return true;
  if (v->due > 0 && (s->look_at <= 0 || s->look_at > v->due)) return false;
  return v->ended < 0 || (s->ended != 0) == (v->ended == 1);
}

typedef struct entry { /* of an ordered set */
  tm_redis_name name;
  int64_t created; /* -1: it does not say */
  bool named;
} entry;

static tm_status visit_one(visit *v, const entry *m, const redisReply *record) {
  tm_session s;
  if (!decode(record, m->name, &s)) return TM_OK;
  if (m->created >= 0 && m->created != s.created) tm__session_spoil(&s);
  if (m->created >= 0) s.created = m->created;
  if (!wanted(v, &s)) return TM_OK;
  if (v->due == 0 || !s.damaged) v->left--;
  return v->fn(v->ud, &s);
}

/* Reads the records of `count` sessions, then gives those that are wanted. */
static tm_status visit_all(tm_store_conn *c, visit *v, const entry *list, size_t count,
                           tm_error *err) {
  redisReply *replies[PAGE] = {NULL};
  tm_status status = tm__redis_ready(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    if (list[i].named) ask(c, list[i].name);
  if (status == TM_OK && c->awaited > 0) status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    if (list[i].named) status = take_record(c, &replies[i], err);
  for (size_t i = 0; status == TM_OK && i < count && v->left > 0; i++)
    if (list[i].named) status = visit_one(v, &list[i], replies[i]);
  for (size_t i = 0; i < count; i++)
    freeReplyObject(replies[i]);
  return status;
}

static entry check(entry m) {
  const tm_session s = {.tenant = m.name.tenant, .id = m.name.id};
  m.named = m.named && tm__session_is_named(&s);
  return m;
}

/* "TENANT NUL ID" */
static entry split(tm_slice text) {
  const char *nul = text.len > 0 ? memchr(text.ptr, '\0', text.len) : NULL;
  size_t len = nul != NULL ? (size_t)(nul - text.ptr) : text.len;
  entry m = {.name = {{text.ptr, len}, {text.ptr + len, 0}}, .created = -1, .named = nul != NULL};
  if (nul != NULL) m.name.id = (tm_slice){nul + 1, text.len - len - 1};
  return m;
}

/* The order, then of a set of all tenants the name, else the id. */
static entry split_ordered(tm_slice text, tm_slice tenant) {
  char order[17] = "", again[17];
  tm_slice rest = {text.ptr, 0};
  bool ordered = text.len > 16 && tm__copy(order, sizeof(order), (tm_slice){text.ptr, 16});
  int64_t created = (int64_t)(strtoull(order, NULL, 16) ^ UINT64_C(0x8000000000000000));
  tm__redis_session_order(again, created);
  if (text.len > 16) rest = (tm_slice){text.ptr + 16, text.len - 16};
  entry m = tenant.ptr == NULL ? split(rest) : (entry){.name = {tenant, rest}, .named = true};
  m.created = created;
  m.named = m.named && ordered && strcmp(order, again) == 0 && created >= 0;
  return check(m);
}

static void add_page(tm_store_conn *c, const tm_session_filter *f, const tm_buf *below) {
  tm_redis_key k;
  bool all = f->tenant.ptr == NULL;
  const char *name = f->ended == 0 ? "{sessions}:open" : "{sessions}:all";
  tm__redis_session_key(&k, c->store, name, NULL);
  if (!all) {
    tm__redis_key_text(&k, ":");
    tm__redis_key_part(&k, f->tenant);
  }
  tm__redis_command(c, "ZREVRANGEBYLEX", 6);
  tm__redis_key_arg(c, &k);
  tm__redis_arg(c, below->len > 0 ? tm__buf_view(below) : TM_S("+"));
  tm__redis_text(c, "-");
  tm__redis_text(c, "LIMIT");
  tm__redis_int(c, 0);
  tm__redis_int(c, PAGE);
}

static void set_below(tm_buf *below, tm_slice member) {
  tm__buf_clear(below);
  tm__buf_byte(below, '(');
  tm__buf_slice(below, member);
}

static void first_below(tm_buf *below, const tm_session_filter *f) {
  char order[17];
  if (f->before_id.ptr == NULL) return;
  tm__redis_session_order(order, f->before_created);
  set_below(below, tm__slice(order));
  if (f->tenant.ptr == NULL) {
    tm__buf_slice(below, f->before_tenant);
    tm__buf_byte(below, '\0');
  }
  tm__buf_slice(below, f->before_id);
}

/* The next page of a list, whose members are borrowed from *out. */
static tm_status read_page(tm_store_conn *c, const tm_session_filter *f, tm_buf *below, entry *list,
                           size_t *count, redisReply **out, tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  *count = 0;
  if (status != TM_OK) return status;
  add_page(c, f, below);
  status = tm__redis_ask(c, out, err);
  if (status != TM_OK) return status;
  *count = (*out)->elements < PAGE ? (*out)->elements : PAGE;
  for (size_t i = 0; i < *count; i++) {
    tm_slice text = tm__redis_slice(tm__redis_item(*out, i));
    list[i] = split_ordered(text, f->tenant);
    if (i + 1 == *count) set_below(below, text);
  }
  return tm__buf_ok(below) ? TM_OK : tm__fail_memory(err, "sessions");
}

tm_status tm__redis_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                             void *ud, tm_error *err) {
  visit v = {.ended = f->ended, .left = f->limit, .fn = fn, .ud = ud};
  tm_buf below = {0};
  size_t got = PAGE;
  tm_status status = TM_OK;
  first_below(&below, f);
  while (status == TM_OK && got == PAGE && v.left > 0) {
    redisReply *reply;
    entry list[PAGE];
    status = read_page(c, f, &below, list, &got, &reply, err);
    if (status == TM_OK) status = visit_all(c, &v, list, got, err);
    freeReplyObject(reply);
  }
  tm__buf_free(&below);
  return status;
}

static tm_status tell_nameless(tm_store_conn *c, const entry *m, tm_unreadable_fn fn, void *ud) {
  const tm_session s = {.tenant = m->name.tenant, .id = m->name.id};
  tm_error why;
  (void)tm__session_damaged(&s, c->store->place, &why);
  return fn(ud, &why);
}

tm_status tm__redis_unreadable(tm_store_conn *c, tm_unreadable_fn fn, void *ud, tm_error *err) {
  const tm_session_filter all = {.ended = -1};
  tm_buf below = {0};
  size_t got = PAGE;
  tm_status status = TM_OK;
  while (status == TM_OK && got == PAGE) {
    redisReply *reply;
    entry list[PAGE];
    status = read_page(c, &all, &below, list, &got, &reply, err);
    for (size_t i = 0; status == TM_OK && i < got; i++)
      if (!list[i].named) status = tell_nameless(c, &list[i], fn, ud);
    freeReplyObject(reply);
  }
  tm__buf_free(&below);
  if (status == TM_OK) status = tm__redis_nameless_events(c, fn, ud, err);
  return status == TM_OK ? tm__redis_nameless_tenants(c, fn, ud, err) : status;
}

tm_status tm__redis_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                 void *ud, tm_error *err) {
  visit v = {.ended = -1, .due = now, .left = limit, .fn = fn, .ud = ud};
  size_t got = PAGE, from = 0;
  tm_status status = TM_OK;
  for (; status == TM_OK && got == PAGE && v.left > 0; from += PAGE) {
    redisReply *reply = NULL;
    entry list[PAGE];
    tm_redis_key k;
    status = tm__redis_ready(c, err);
    if (status != TM_OK) break;
    tm__redis_session_key(&k, c->store, "{sessions}:due", NULL);
    tm__redis_run(c, TM_REDIS_TAKE, 1, 4);
    tm__redis_key_arg(c, &k);
    tm__redis_int(c, now);
    tm__redis_int(c, (int64_t)from);
    tm__redis_int(c, PAGE);
    tm__redis_int(c, 0);
    status = tm__redis_ask(c, &reply, err);
    got = status == TM_OK ? reply->elements / 2 : 0;
    for (size_t i = 0; i < got; i++)
      list[i] = check(split(tm__redis_slice(tm__redis_item(reply, 2 * i))));
    if (status == TM_OK) status = visit_all(c, &v, list, got, err);
    freeReplyObject(reply);
  }
  return status;
}
