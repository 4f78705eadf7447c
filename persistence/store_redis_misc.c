/* store_redis_misc.c - what belongs to no conversation: the sources of systems, notes of the host,
 * tenants that have stores of their own. */
#include <stdlib.h>

#include "persistence/store_redis.h"

/* ---- scripts: one hash, named by system, NUL, version; with one more NUL: the last use ---- */

static bool add_field(tm_store_conn *c, tm_slice system, tm_slice version, bool use) {
  tm_buf name = {0};
  tm__buf_slice(&name, system);
  tm__buf_byte(&name, '\0');
  tm__buf_slice(&name, version);
  if (use) tm__buf_byte(&name, '\0');
  bool ok = tm__buf_ok(&name);
  if (ok) tm__redis_arg(c, tm__buf_view(&name));
  tm__buf_free(&name);
  return ok;
}

static tm_status begin(tm_store_conn *c, const char *command, const char *key, size_t args,
                       tm_error *err) {
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, key);
  tm__redis_command(c, command, 1 + args);
  tm__redis_key_arg(c, &k);
  return TM_OK;
}

/* A script of the server on both fields and a time, and on `sources` unless ptr is NULL. */
static tm_status run(tm_store_conn *c, tm_redis_script which, tm_slice system, tm_slice version,
                     int64_t time, tm_slice sources, int64_t *result, tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "scripts");
  tm__redis_run(c, which, 1, sources.ptr != NULL ? 4 : 3);
  tm__redis_key_arg(c, &k);
  if (!add_field(c, system, version, false) || !add_field(c, system, version, true)) {
    tm__redis_drop(c);
    return tm__fail_memory(err, "a script");
  }
  tm__redis_int(c, time);
  if (sources.ptr != NULL) tm__redis_arg(c, sources);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  *result = reply->integer;
  freeReplyObject(reply);
  return TM_OK;
}

tm_status tm__redis_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                               tm_slice sources, tm_error *err) {
  int64_t result = 0;
  if (sources.ptr == NULL) sources = TM_S("");
  return run(c, TM_REDIS_PUT_SCRIPT, system, version, tm__redis_now(c->store), sources, &result,
             err);
}

tm_status tm__redis_script_use(tm_store_conn *c, tm_slice system, tm_slice version, tm_error *err) {
  int64_t result = 0;
  tm_status status = run(c, TM_REDIS_USE_SCRIPT, system, version, tm__redis_now(c->store),
                         (tm_slice){0}, &result, err);
  if (status != TM_OK || result == 1) return status;
  return tm__redis_not_found("version of the system", err);
}

tm_status tm__redis_script_drop(tm_store_conn *c, tm_slice system, tm_slice version, int64_t before,
                                tm_error *err) {
  int64_t result = 0;
  tm_status status =
      run(c, TM_REDIS_DROP_SCRIPT, system, version, before, (tm_slice){0}, &result, err);
  if (status != TM_OK || result == 1) return status;
  return result == 2 ? tm__script_used(system, version, err)
                     : tm__redis_not_found("version of the system", err);
}

/* The text that the command at hand gives. */
static tm_status get(tm_store_conn *c, const char *what, tm_buf *out, tm_error *err) {
  redisReply *reply;
  tm_status status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  tm_slice text = tm__redis_slice(reply);
  if (text.ptr == NULL)
    status = tm__redis_not_found(what, err);
  else
    tm__buf_slice(out, text);
  freeReplyObject(reply);
  return status != TM_OK || tm__buf_ok(out) ? status : tm__fail_memory(err, what);
}

tm_status tm__redis_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                               tm_error *err) {
  tm_status status = begin(c, "HGET", "scripts", 1, err);
  if (status != TM_OK) return status;
  if (add_field(c, system, version, false)) return get(c, "version of the system", out, err);
  tm__redis_drop(c);
  return tm__fail_memory(err, "a script");
}

typedef struct script_name {
  tm_slice system, version;
} script_name;

/* Of a field that holds sources; false: another one. */
static bool split_field(script_name *out, tm_slice field) {
  const char *nul = field.len > 0 ? memchr(field.ptr, '\0', field.len) : NULL;
  if (nul == NULL) return false;
  size_t len = (size_t)(nul - field.ptr);
  out->system = (tm_slice){field.ptr, len};
  out->version = (tm_slice){nul + 1, field.len - len - 1};
  return out->version.len == 0 || out->version.ptr[out->version.len - 1] != '\0';
}

/* When each was in use last, in the order of their fields. */
static tm_status ask_uses(tm_store_conn *c, const redisReply *fields, size_t count,
                          redisReply **out, tm_error *err) {
  script_name name;
  tm_status status = begin(c, "HMGET", "scripts", count, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; i < fields->elements; i++) {
    if (!split_field(&name, tm__redis_slice(fields->element[i]))) continue;
    if (add_field(c, name.system, name.version, true)) continue;
    tm__redis_drop(c);
    return tm__fail_memory(err, "a list of scripts");
  }
  return tm__redis_ask(c, out, err);
}

tm_status tm__redis_script_list(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err) {
  redisReply *fields, *uses = NULL;
  script_name name;
  size_t count = 0, at = 0;
  tm_status status = begin(c, "HKEYS", "scripts", 0, err);
  if (status == TM_OK) status = tm__redis_ask(c, &fields, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; i < fields->elements; i++)
    count += split_field(&name, tm__redis_slice(fields->element[i]));
  if (count > 0) status = ask_uses(c, fields, count, &uses, err);
  for (size_t i = 0; status == TM_OK && i < fields->elements; i++) {
    if (!split_field(&name, tm__redis_slice(fields->element[i]))) continue;
    const redisReply *use = tm__redis_item(uses, at++);
    int64_t used = use != NULL ? tm__redis_number(tm__redis_slice(use)) : 0;
    status = fn(ud, name.system, name.version, used);
  }
  freeReplyObject(fields);
  freeReplyObject(uses);
  return status;
}

/* ---- notes ---- */

tm_status tm__redis_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err) {
  bool gone = text.ptr == NULL;
  tm_status status = begin(c, gone ? "HDEL" : "HSET", "notes", gone ? 1 : 2, err);
  if (status != TM_OK) return status;
  tm__redis_arg(c, name);
  if (!gone) tm__redis_arg(c, text);
  return tm__redis_tell(c, err);
}

tm_status tm__redis_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err) {
  tm_status status = begin(c, "HGET", "notes", 1, err);
  if (status != TM_OK) return status;
  tm__redis_arg(c, name);
  return get(c, "note", out, err);
}

tm_status tm__redis_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                              tm_error *err) {
  redisReply *reply;
  tm_redis_key k;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_key(&k, c->store, "notes");
  tm__redis_run(c, TM_REDIS_SWAP_NOTE, 1, 4);
  tm__redis_key_arg(c, &k);
  tm__redis_arg(c, name);
  tm__redis_arg(c, text);
  tm__redis_text(c, expect.ptr == NULL ? "1" : "0");
  tm__redis_arg(c, expect);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool set = reply->integer == 1;
  freeReplyObject(reply);
  return set ? TM_OK : tm__store_note_moved(name, err);
}

/* ---- tenants: names in order, what stands for each, who is due; all in one slot ---- */

static void add_key(tm_store_conn *c, const char *name) {
  tm_redis_key k;
  tm__redis_key(&k, c->store, name);
  tm__redis_key_arg(c, &k);
}

tm_status tm__redis_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                                tm_error *err) {
  redisReply *reply;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_run(c, TM_REDIS_WAKE, 3, 3);
  add_key(c, "{tenants}:names");
  add_key(c, "{tenants}:wake_at");
  add_key(c, "{tenants}:due");
  tm__redis_arg(c, tenant);
  tm__redis_int(c, expect);
  tm__redis_int(c, wake_at);
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  bool set = reply->integer == 1;
  freeReplyObject(reply);
  if (set) return TM_OK;
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "the wake-up of tenant %.*s was changed by another process meanwhile",
                  (int)(tenant.len < 64 ? tenant.len : 64), tenant.ptr);
}

#define TENANTS_PAGE 128

/* Gives the tenants named by every `step`-th item of `list`, with what stands for each, at most
 * *left; what is no name is passed over. */
static tm_status give(tm_store_conn *c, const redisReply *list, size_t step, size_t *left,
                      tm_tenant_fn fn, void *ud, tm_error *err) {
  redisReply *reply;
  if (list->elements < step) return TM_OK;
  tm_status status = tm__redis_ready(c, err);
  if (status != TM_OK) return status;
  tm__redis_command(c, "HMGET", 1 + list->elements / step);
  add_key(c, "{tenants}:wake_at");
  for (size_t i = 0; i + step <= list->elements; i += step)
    tm__redis_arg(c, tm__redis_slice(list->element[i]));
  status = tm__redis_ask(c, &reply, err);
  if (status != TM_OK) return status;
  for (size_t i = 0; status == TM_OK && *left > 0 && i < reply->elements; i++) {
    tm_slice name = tm__redis_slice(list->element[i * step]);
    if (!tm__name_fits(name, 64)) continue;
    --*left;
    status = fn(ud, name, tm__redis_number(tm__redis_slice(reply->element[i])));
  }
  freeReplyObject(reply);
  return status;
}

static tm_status due_page(tm_store_conn *c, int64_t now, size_t from, size_t page, redisReply **out,
                          tm_error *err) {
  tm_status status = tm__redis_ready(c, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_run(c, TM_REDIS_TAKE, 1, 4);
  add_key(c, "{tenants}:due");
  tm__redis_int(c, now);
  tm__redis_int(c, (int64_t)from);
  tm__redis_int(c, (int64_t)page);
  tm__redis_int(c, 0);
  return tm__redis_ask(c, out, err);
}

tm_status tm__redis_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                                void *ud, tm_error *err) {
  tm_status status = TM_OK;
  size_t page = limit < TENANTS_PAGE ? limit : TENANTS_PAGE, count = page;
  for (size_t from = 0; status == TM_OK && limit > 0 && count == page; from += page) {
    redisReply *reply;
    status = due_page(c, now, from, page, &reply, err);
    count = status == TM_OK ? reply->elements / 2 : 0;
    if (status == TM_OK) status = give(c, reply, 2, &limit, fn, ud, err);
    freeReplyObject(reply);
  }
  return status;
}

/* The names behind `edge`, which moves on. */
static tm_status names_page(tm_store_conn *c, tm_buf *edge, size_t page, redisReply **out,
                            tm_error *err) {
  tm_status status = begin(c, "ZRANGEBYLEX", "{tenants}:names", 5, err);
  *out = NULL;
  if (status != TM_OK) return status;
  tm__redis_arg(c, tm__buf_view(edge));
  tm__redis_text(c, "+");
  tm__redis_text(c, "LIMIT");
  tm__redis_int(c, 0);
  tm__redis_int(c, (int64_t)page);
  status = tm__redis_ask(c, out, err);
  if (status != TM_OK || (*out)->elements == 0) return status;
  tm__buf_clear(edge);
  tm__buf_byte(edge, '(');
  tm__buf_slice(edge, tm__redis_slice((*out)->element[(*out)->elements - 1]));
  return tm__buf_ok(edge) ? TM_OK : tm__fail_memory(err, "tenants");
}

tm_status tm__redis_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                            void *ud, tm_error *err) {
  tm_buf edge = {0};
  tm_status status = TM_OK;
  tm__buf_text(&edge, after.len > 0 ? "(" : "-");
  tm__buf_slice(&edge, after);
  size_t page = limit < TENANTS_PAGE ? limit : TENANTS_PAGE;
  for (size_t count = page; status == TM_OK && limit > 0 && count == page;) {
    redisReply *reply;
    status = names_page(c, &edge, page, &reply, err);
    count = status == TM_OK ? reply->elements : 0;
    if (status == TM_OK) status = give(c, reply, 1, &limit, fn, ud, err);
    freeReplyObject(reply);
  }
  tm__buf_free(&edge);
  return status;
}

static tm_status tell_nameless(const tm_store_conn *c, const redisReply *names, tm_unreadable_fn fn,
                               void *ud) {
  tm_status status = TM_OK;
  for (size_t i = 0; status == TM_OK && i < names->elements; i++) {
    tm_slice name = tm__redis_slice(names->element[i]);
    tm_error why;
    if (tm__name_fits(name, 64)) continue;
    (void)tm__store_nameless("a tenant", name, c->store->place, &why);
    status = fn(ud, &why);
  }
  return status;
}

tm_status tm__redis_nameless_tenants(tm_store_conn *c, tm_unreadable_fn fn, void *ud,
                                     tm_error *err) {
  tm_buf edge = {0};
  tm_status status = TM_OK;
  tm__buf_byte(&edge, '-');
  for (size_t count = TENANTS_PAGE; status == TM_OK && count == TENANTS_PAGE;) {
    redisReply *reply;
    status = names_page(c, &edge, TENANTS_PAGE, &reply, err);
    count = status == TM_OK ? reply->elements : 0;
    if (status == TM_OK) status = tell_nameless(c, reply, fn, ud);
    freeReplyObject(reply);
  }
  tm__buf_free(&edge);
  return status;
}
