/* store_redis_sessions.c - sessions are read: one, or an ordered set of them, page by page. */
#include "persistence/store_redis.h"

#define PAGE 100

static void ask(tm_store_conn *c, tm_redis_name n) {
  static const char *const fields[] = {"created", "look_at", "ended",
                                       "flags",   "user_id", "metadata"};
  tm_redis_key k;
  tm__redis_session_record(&k, c->store, n);
  tm__redis_command(c, "HMGET", 7);
  tm__redis_key_arg(c, &k);
  for (size_t i = 0; i < 6; i++)
    tm__redis_text(c, fields[i]);
}

/* Valid as long as the reply; false: there is none. */
static bool decode(const redisReply *r, tm_redis_name n, tm_session *out) {
  tm_slice created = tm__redis_slice(tm__redis_item(r, 0));
  *out = (tm_session){.tenant = n.tenant,
                      .id = n.id,
                      .created = tm__redis_number(created),
                      .look_at = tm__redis_number(tm__redis_slice(tm__redis_item(r, 1))),
                      .ended = tm__redis_number(tm__redis_slice(tm__redis_item(r, 2))),
                      .flags = (uint32_t)tm__redis_number(tm__redis_slice(tm__redis_item(r, 3))),
                      .user_id = tm__redis_slice(tm__redis_item(r, 4)),
                      .metadata = tm__redis_slice(tm__redis_item(r, 5))};
  return created.ptr != NULL;
}

tm_status tm__redis_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                            void *ud, tm_error *err) {
  redisReply *reply;
  tm_session s;
  tm_redis_name n = {tenant, id};
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  ask(c, n);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  status = decode(reply, n, &s) ? fn(ud, &s) : tm__redis_not_found("session", err);
  freeReplyObject(reply);
  return status;
}

typedef struct visit {
  int ended; /* as in the filter */
  int64_t due;
  size_t left;
  tm_session_fn fn;
  void *ud;
} visit;

static bool wanted(const visit *v, const tm_session *s) {
  if (v->due > 0 && (s->look_at <= 0 || s->look_at > v->due)) return false;
  return v->ended < 0 || (s->ended != 0) == (v->ended == 1);
}

/* Reads the records of `count` sessions, then gives those that are wanted. */
static tm_status visit_all(tm_store_conn *c, visit *v, const tm_redis_name *list, size_t count,
                           tm_error *err) {
  redisReply *replies[PAGE] = {NULL};
  tm_status status = tm__redis_ready(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    ask(c, list[i]);
  if (status == TM_OK && count > 0) status = tm__redis_flush(c, err);
  for (size_t i = 0; status == TM_OK && i < count; i++)
    status = tm__redis_take(c, &replies[i], err);
  for (size_t i = 0; status == TM_OK && i < count && v->left > 0; i++) {
    tm_session s;
    if (!decode(replies[i], list[i], &s) || !wanted(v, &s)) continue;
    v->left--;
    status = v->fn(v->ud, &s);
  }
  for (size_t i = 0; i < count; i++)
    freeReplyObject(replies[i]);
  return status;
}

/* A member of a set of all tenants holds its tenant, a NUL, its id. */
static tm_redis_name split(tm_slice member) {
  const char *nul = member.len > 0 ? memchr(member.ptr, '\0', member.len) : NULL;
  size_t len = nul != NULL ? (size_t)(nul - member.ptr) : member.len;
  tm_slice rest = {member.ptr + len, member.len - len};
  if (rest.len > 0) rest = (tm_slice){rest.ptr + 1, rest.len - 1};
  return (tm_redis_name){{member.ptr, len}, rest};
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
  if (f->before_created == 0 && f->before_id.len == 0) return;
  tm__redis_session_order(order, f->before_created);
  set_below(below, tm__slice(order));
  if (f->tenant.ptr == NULL) {
    tm__buf_slice(below, f->before_tenant);
    tm__buf_byte(below, '\0');
  }
  tm__buf_slice(below, f->before_id);
}

tm_status tm__redis_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                             void *ud, tm_error *err) {
  visit v = {.ended = f->ended, .left = f->limit, .fn = fn, .ud = ud};
  tm_buf below = {0};
  size_t got = PAGE;
  tm_status status = TM_OK;
  first_below(&below, f);
  while (status == TM_OK && got == PAGE && v.left > 0) {
    redisReply *reply = NULL;
    tm_redis_name list[PAGE];
    status = tm__redis_ready(c, err);
    if (status != TM_OK) break;
    add_page(c, f, &below);
    status = tm__redis_ask(c, &reply, err);
    got = status == TM_OK && reply->elements < PAGE ? reply->elements : PAGE;
    for (size_t i = 0; status == TM_OK && i < got; i++) {
      tm_slice member = tm__redis_slice(tm__redis_item(reply, i));
      set_below(&below, member);
      if (member.len < 16) member = TM_S("0000000000000000");
      member = (tm_slice){member.ptr + 16, member.len - 16};
      list[i] = f->tenant.ptr == NULL ? split(member) : (tm_redis_name){f->tenant, member};
    }
    if (status == TM_OK) status = visit_all(c, &v, list, got, err);
    freeReplyObject(reply);
    if (status == TM_OK && !tm__buf_ok(&below)) status = tm__fail_memory(err, "sessions");
  }
  tm__buf_free(&below);
  return status;
}

tm_status tm__redis_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                 void *ud, tm_error *err) {
  visit v = {.ended = -1, .due = now, .left = limit, .fn = fn, .ud = ud};
  size_t got = PAGE, from = 0;
  tm_status status = TM_OK;
  for (; status == TM_OK && got == PAGE && v.left > 0; from += PAGE) {
    redisReply *reply = NULL;
    tm_redis_name list[PAGE];
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
      list[i] = split(tm__redis_slice(tm__redis_item(reply, 2 * i)));
    if (status == TM_OK) status = visit_all(c, &v, list, got, err);
    freeReplyObject(reply);
  }
  return status;
}
