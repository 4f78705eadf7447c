/* store_memory_sets.c - sessions, scripts, notes, tenants of the store in memory. */
#include <stdlib.h>
#include <string.h>

#include "persistence/store_memory.h"

/* ---- sessions; under the lock ---- */

/* "a NUL b"; false: it does not fit. */
static bool join(tm_session_name *out, tm_slice a, tm_slice b) {
  if (a.len + b.len >= sizeof(out->text)) return false;
  if (a.len > 0) memcpy(out->text, a.ptr, a.len);
  out->text[a.len] = '\0';
  if (b.len > 0) memcpy(out->text + a.len + 1, b.ptr, b.len);
  out->len = a.len + 1 + b.len;
  return true;
}

bool tm__memory_session_name(tm_session_name *out, tm_slice tenant, tm_slice id) {
  return tenant.len <= 64 && id.len <= 128 && join(out, tenant, id);
}

static tm_slice name_of(const tm_session_name *name) {
  return (tm_slice){name->text, name->len};
}

/* `at` moves behind the copy. */
static tm_slice put(char **at, tm_slice text) {
  char *copy = *at;
  if (text.len > 0) memcpy(copy, text.ptr, text.len);
  *at += text.len;
  return (tm_slice){text.ptr != NULL ? copy : NULL, text.len};
}

tm_session_record *tm__memory_session_new(const tm_session *session) {
  const tm_session *s = session;
  size_t size = sizeof(tm_session_record) + 2 * s->tenant.len + s->id.len + 2 + s->user_id.len +
                s->metadata.len;
  tm_session_record *r = malloc(size);
  if (r == NULL) return NULL;
  char *at = r->bytes;
  *r = (tm_session_record){.size = size, .session = *s};
  r->session.tenant = put(&at, s->tenant);
  *at++ = '\0';
  r->session.id = put(&at, s->id);
  *at++ = '\0';
  (void)put(&at, s->tenant);
  r->session.user_id = put(&at, s->user_id);
  r->session.metadata = put(&at, s->metadata);
  r->by_name.text = r->by_look.text = (tm_slice){r->bytes, s->tenant.len + 1 + s->id.len};
  r->by_age.text = (tm_slice){r->bytes + s->tenant.len + 1, s->id.len + 1 + s->tenant.len};
  r->by_age.number = s->created;
  return r;
}

tm_session_record *tm__memory_find_session(const tm_store *s, const tm_session_name *name) {
  tm_order_node *n = tm__order_find(&s->sessions, 0, name_of(name));
  return n != NULL ? TM_RECORD(tm_session_record, by_name, n) : NULL;
}

static void count_open(tm_store *s, const tm_session_record *r, int64_t by) {
  if (r->session.ended != 0) return;
  s->sessions_open += by;
  tm__memory_find_tenant(s, r->session.tenant)->sessions += by;
}

static void set_look(tm_store *s, tm_session_record *r, int64_t look_at) {
  if (r->by_look.number > 0) tm__order_remove(&s->session_looks, &r->by_look);
  r->by_look.number = r->session.look_at = look_at;
  if (look_at > 0) tm__order_insert(&s->session_looks, &r->by_look);
}

void tm__memory_session_add(tm_store *s, tm_session_record *r) {
  s->bytes += r->size;
  count_open(s, r, 1);
  tm__order_insert(&s->sessions, &r->by_name);
  tm__order_insert(&s->session_ages, &r->by_age);
  set_look(s, r, r->session.look_at);
}

void tm__memory_session_remove(tm_store *s, tm_session_record *r) {
  s->bytes -= r->size;
  count_open(s, r, -1);
  set_look(s, r, 0);
  tm__order_remove(&s->session_ages, &r->by_age);
  tm__order_remove(&s->sessions, &r->by_name);
  r->leftover.next = s->leftovers;
  s->leftovers = &r->leftover;
}

void tm__memory_session_reopen(tm_store *s, tm_session_record *r, int64_t look_at) {
  r->session.ended = 0;
  count_open(s, r, 1);
  set_look(s, r, look_at);
}

bool tm__memory_session_in_use(const tm_store *s, const tm_session_name *name) {
  tm_order_node *n = tm__order_above(&s->in_session, 0, name_of(name));
  return n != NULL && n->text.len > name->len && n->text.ptr[name->len] == '\0' &&
         memcmp(n->text.ptr, name->text, name->len) == 0;
}

/* ---- sessions ---- */

/* The session, its texts lent. */
static bool lend_session(tm_store *s, tm_slice tenant, tm_slice id, tm_session *out) {
  tm_session_name name;
  if (!tm__memory_session_name(&name, tenant, id)) return false;
  tm__memory_lock(s);
  const tm_session_record *r = tm__memory_find_session(s, &name);
  if (r != NULL) *out = r->session;
  tm__memory_unlock(s);
  return r != NULL;
}

tm_status tm__memory_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                             void *ud, tm_error *err) {
  tm_session session;
  tm__memory_begin_walk(c->store);
  bool found = lend_session(c->store, tenant, id, &session);
  tm_status status = found ? fn(ud, &session) : tm__memory_not_found(err, "session");
  tm__memory_end_walk(c->store);
  return status;
}

static bool session_matches(const tm_session *s, const tm_session_filter *f) {
  return (f->tenant.ptr == NULL || tm__slice_eq(f->tenant, s->tenant)) &&
         (f->ended < 0 || (s->ended != 0) == (f->ended > 0));
}

/* The next that matches below (created, "id NUL tenant"), lent. */
static bool next_session(tm_store *s, const tm_session_filter *f, int64_t created, tm_slice name,
                         tm_session *out) {
  tm__memory_lock(s);
  tm_order_node *n = tm__order_below(&s->session_ages, created, name);
  while (n != NULL && !session_matches(&TM_RECORD(tm_session_record, by_age, n)->session, f))
    n = tm__order_below(&s->session_ages, n->number, n->text);
  if (n != NULL) *out = TM_RECORD(tm_session_record, by_age, n)->session;
  tm__memory_unlock(s);
  return n != NULL;
}

static tm_status walk_sessions(tm_store *s, const tm_session_filter *f, tm_session_fn fn,
                               void *ud) {
  bool after = f->before_created != 0 || f->before_id.ptr != NULL;
  int64_t created = after ? f->before_created : INT64_MAX;
  tm_slice tenant = f->tenant.ptr == NULL ? f->before_tenant : f->tenant;
  tm_session_name name = {.len = sizeof(name.text)};
  memset(name.text, 0xff, sizeof(name.text)); /* behind all */
  if (after && !join(&name, f->before_id, tenant)) return TM_OK;
  for (size_t i = 0; i < f->limit; i++) {
    tm_session session;
    if (!next_session(s, f, created, name_of(&name), &session)) break;
    tm_status status = fn(ud, &session);
    if (status != TM_OK) return status;
    created = session.created;
    (void)join(&name, session.id, session.tenant);
  }
  return TM_OK;
}

tm_status tm__memory_sessions(tm_store_conn *c, const tm_session_filter *f, tm_session_fn fn,
                              void *ud, tm_error *err) {
  (void)err;
  tm__memory_begin_walk(c->store);
  tm_status status = walk_sessions(c->store, f, fn, ud);
  tm__memory_end_walk(c->store);
  return status;
}

tm_status tm__memory_sessions_due(tm_store_conn *c, int64_t now, size_t limit, tm_session_fn fn,
                                  void *ud, tm_error *err) {
  (void)err;
  tm_store *s = c->store;
  tm_status status = TM_OK;
  tm_session session = {.look_at = 0};
  tm_session_name name = {.len = 0};
  tm__memory_begin_walk(s);
  for (size_t i = 0; status == TM_OK && i < limit; i++) {
    tm__memory_lock(s);
    tm_order_node *n = tm__order_above(&s->session_looks, session.look_at, name_of(&name));
    bool found = n != NULL && n->number <= now;
    if (found) session = TM_RECORD(tm_session_record, by_look, n)->session;
    tm__memory_unlock(s);
    if (!found) break;
    (void)tm__memory_session_name(&name, session.tenant, session.id);
    status = fn(ud, &session);
  }
  tm__memory_end_walk(s);
  return status;
}

/* Under the lock; false: what is stored is not what was expected. */
static bool replace_session(tm_store *s, const tm_session_name *name, const tm_session *expect,
                            tm_session_record *r) {
  tm_session_record *old = tm__memory_find_session(s, name);
  if (expect != NULL && (old == NULL || tm__session_is(&expect, &old->session) != TM_OK))
    return false;
  if (old != NULL) tm__memory_session_remove(s, old);
  tm__memory_session_add(s, r);
  return true;
}

tm_status tm__memory_session_put(tm_store_conn *c, const tm_session *expect,
                                 const tm_session *session, tm_error *err) {
  tm_store *s = c->store;
  tm_session_name name;
  if (!tm__memory_session_name(&name, session->tenant, session->id))
    return tm__fail(err, TM_EINVAL, "store.refused", "the name of a session is too long");
  tm_session_record *r = tm__memory_session_new(session);
  tm_tenant_record *t = tm__memory_tenant_new(session->tenant);
  if (r == NULL || t == NULL) {
    free(r);
    free(t);
    return tm__fail_memory(err, "a session");
  }
  tm__memory_lock(s);
  if (tm__memory_find_tenant(s, session->tenant) == NULL) {
    tm__memory_tenant_add(s, t);
    t = NULL;
  }
  bool replaced = replace_session(s, &name, expect, r);
  tm__memory_tidy(s, 0);
  tm__memory_unlock(s);
  free(t);
  if (replaced) return TM_OK;
  free(r);
  return tm__session_moved(session->id, err);
}

tm_status tm__memory_session_drop(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_error *err) {
  tm_store *s = c->store;
  tm_session_name name;
  if (!tm__memory_session_name(&name, tenant, id)) return TM_OK;
  tm__memory_lock(s);
  bool used = tm__memory_session_in_use(s, &name);
  tm_session_record *r = used ? NULL : tm__memory_find_session(s, &name);
  if (r != NULL) tm__memory_session_remove(s, r);
  tm__memory_tidy(s, 0);
  tm__memory_unlock(s);
  if (!used) return TM_OK;
  return tm__fail(err, TM_ECONFLICT, "store.session_in_use",
                  "the session has conversations: purge them first");
}

/* ---- scripts and notes ---- */

/* Appends the text of that name, under the lock. */
static tm_status get_text(tm_store *s, const tm_order *set, tm_slice a, tm_slice b, tm_buf *out,
                          const char *what, tm_error *err) {
  const tm_named_text *t;
  tm__memory_lock(s);
  bool looked = tm__named_text_find(set, a, b, &t);
  bool found = looked && t != NULL;
  if (found) tm__buf_slice(out, tm__named_text_get(t));
  tm__memory_unlock(s);
  if (looked && !found) return tm__memory_not_found(err, what);
  return looked && tm__buf_ok(out) ? TM_OK : tm__fail_memory(err, what);
}

tm_status tm__memory_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                                tm_slice sources, tm_error *err) {
  tm_named_text *t = tm__named_text_new(system, version, sources);
  if (t == NULL) return tm__fail_memory(err, "a script");
  t->time = c->store->now_ms(c->store->now_ud);
  tm__memory_lock(c->store);
  bool added = tm__named_text_insert(&c->store->scripts, t);
  tm__memory_unlock(c->store);
  if (!added) free(t);
  return TM_OK;
}

tm_status tm__memory_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                                tm_error *err) {
  return get_text(c->store, &c->store->scripts, system, version, out, "version of the system", err);
}

/* Under the lock; NULL with err->status TM_ENOTFOUND or TM_ENOMEM. */
static tm_named_text *find_script(tm_store *s, tm_slice system, tm_slice version, tm_error *err) {
  const tm_named_text *t;
  bool looked = tm__named_text_find(&s->scripts, system, version, &t);
  if (!looked)
    (void)tm__fail_memory(err, "a script");
  else if (t == NULL)
    (void)tm__memory_not_found(err, "version of the system");
  else
    return TM_RECORD(tm_named_text, node, tm__order_find(&s->scripts, 0, t->node.text));
  return NULL;
}

tm_status tm__memory_script_use(tm_store_conn *c, tm_slice system, tm_slice version,
                                tm_error *err) {
  tm_error why = {0};
  int64_t now = c->store->now_ms(c->store->now_ud);
  tm__memory_lock(c->store);
  tm_named_text *t = find_script(c->store, system, version, &why);
  if (t != NULL && t->time < now) t->time = now;
  tm__memory_unlock(c->store);
  if (t == NULL && err != NULL) *err = why;
  return why.status;
}

tm_status tm__memory_script_drop(tm_store_conn *c, tm_slice system, tm_slice version,
                                 int64_t before, tm_error *err) {
  tm_error why = {0};
  tm__memory_lock(c->store);
  tm_named_text *t = find_script(c->store, system, version, &why);
  bool used = t != NULL && t->time > before;
  if (t != NULL && !used) {
    tm__order_remove(&c->store->scripts, &t->node);
    free(t);
  }
  tm__memory_unlock(c->store);
  if (used) return tm__script_used(system, version, err);
  if (t == NULL && err != NULL) *err = why;
  return why.status;
}

tm_status tm__memory_scripts(tm_store_conn *c, tm_script_fn fn, void *ud, tm_error *err) {
  tm_buf name = {0};
  tm_status status = TM_OK;
  while (status == TM_OK) {
    int64_t used = 0;
    tm_slice last = name.len > 0 ? tm__buf_view(&name) : TM_S("");
    tm__memory_lock(c->store);
    tm_order_node *n = tm__order_above(&c->store->scripts, 0, last);
    if (n != NULL) {
      used = TM_RECORD(tm_named_text, node, n)->time;
      tm__buf_clear(&name);
      tm__buf_slice(&name, n->text);
    }
    tm__memory_unlock(c->store);
    if (n == NULL) break;
    if (!tm__buf_ok(&name)) {
      status = tm__fail_memory(err, "a list of scripts");
      break;
    }
    size_t len = strlen(name.ptr);
    status =
        fn(ud, (tm_slice){name.ptr, len}, (tm_slice){name.ptr + len + 1, name.len - len - 1}, used);
  }
  tm__buf_free(&name);
  return status;
}

tm_status tm__memory_note_put(tm_store_conn *c, tm_slice name, tm_slice text, tm_error *err) {
  tm_named_text *t = tm__named_text_new(name, TM_S(""), text);
  if (t == NULL) return tm__fail_memory(err, "a note");
  tm__memory_lock(c->store);
  tm_order_node *old = tm__order_find(&c->store->notes, 0, t->node.text);
  if (old != NULL) {
    tm__order_remove(&c->store->notes, old);
    free(TM_RECORD(tm_named_text, node, old));
  }
  bool added = text.ptr != NULL && tm__named_text_insert(&c->store->notes, t);
  tm__memory_unlock(c->store);
  if (!added) free(t);
  return TM_OK;
}

tm_status tm__memory_note_get(tm_store_conn *c, tm_slice name, tm_buf *out, tm_error *err) {
  return get_text(c->store, &c->store->notes, name, TM_S(""), out, "note", err);
}

/* Under the lock. */
static bool note_is(tm_order_node *old, tm_slice expect) {
  if (old == NULL) return expect.ptr == NULL;
  return expect.ptr != NULL &&
         tm__slice_eq(tm__named_text_get(TM_RECORD(tm_named_text, node, old)), expect);
}

tm_status tm__memory_note_swap(tm_store_conn *c, tm_slice name, tm_slice expect, tm_slice text,
                               tm_error *err) {
  tm_named_text *t = tm__named_text_new(name, TM_S(""), text);
  if (t == NULL) return tm__fail_memory(err, "a note");
  tm__memory_lock(c->store);
  tm_order_node *old = tm__order_find(&c->store->notes, 0, t->node.text);
  bool same = note_is(old, expect);
  if (same && old != NULL) {
    tm__order_remove(&c->store->notes, old);
    free(TM_RECORD(tm_named_text, node, old));
  }
  if (same) (void)tm__named_text_insert(&c->store->notes, t);
  tm__memory_unlock(c->store);
  if (same) return TM_OK;
  free(t);
  return tm__store_note_moved(name, err);
}

/* ---- tenants: those with stores of their own are listed; all with sessions are counted ---- */

tm_tenant_record *tm__memory_tenant_new(tm_slice name) {
  tm_tenant_record *t = calloc(1, sizeof(*t) + name.len);
  if (t == NULL) return NULL;
  if (name.len > 0) memcpy(t->name, name.ptr, name.len);
  t->len = name.len;
  t->by_name.text = t->by_wake.text = (tm_slice){t->name, t->len};
  return t;
}

tm_tenant_record *tm__memory_find_tenant(const tm_store *s, tm_slice name) {
  tm_order_node *n = tm__order_find(&s->tenants, 0, name);
  return n != NULL ? TM_RECORD(tm_tenant_record, by_name, n) : NULL;
}

void tm__memory_tenant_add(tm_store *s, tm_tenant_record *t) {
  tm__order_insert(&s->tenants, &t->by_name);
}

static bool set_wake(tm_store *s, tm_tenant_record *t, int64_t expect, int64_t wake_at) {
  int64_t have = t->wake_at;
  if (expect >= 0 && have != expect) return false;
  t->listed = true;
  if (expect < 0 && have > 0 && have <= wake_at) return true;
  if (have > 0) tm__order_remove(&s->tenant_wakes, &t->by_wake);
  t->wake_at = t->by_wake.number = wake_at;
  if (wake_at > 0) tm__order_insert(&s->tenant_wakes, &t->by_wake);
  return true;
}

tm_status tm__memory_tenant_wake(tm_store_conn *c, tm_slice tenant, int64_t expect, int64_t wake_at,
                                 tm_error *err) {
  tm_store *s = c->store;
  tm_tenant_record *fresh = tm__memory_tenant_new(tenant);
  if (fresh == NULL) return tm__fail_memory(err, "a tenant");
  tm__memory_lock(s);
  tm_tenant_record *t = tm__memory_find_tenant(s, tenant);
  if (t == NULL) {
    t = fresh;
    fresh = NULL;
    tm__memory_tenant_add(s, t);
  }
  bool set = set_wake(s, t, expect, wake_at);
  tm__memory_unlock(s);
  free(fresh);
  if (set) return TM_OK;
  return tm__fail(err, TM_ECONFLICT, "store.conflict",
                  "when the tenant is due was changed meanwhile: read it again");
}

/* Records of tenants stay: their names can be lent. */
tm_status tm__memory_tenants_due(tm_store_conn *c, int64_t now, size_t limit, tm_tenant_fn fn,
                                 void *ud, tm_error *err) {
  (void)err;
  int64_t wake_at = 0;
  tm_slice name = TM_S("");
  for (size_t i = 0; i < limit; i++) {
    tm__memory_lock(c->store);
    tm_order_node *n = tm__order_above(&c->store->tenant_wakes, wake_at, name);
    bool found = n != NULL && n->number <= now;
    if (found) {
      wake_at = n->number;
      name = n->text;
    }
    tm__memory_unlock(c->store);
    tm_status status = found ? fn(ud, name, wake_at) : TM_OK;
    if (!found || status != TM_OK) return status;
  }
  return TM_OK;
}

tm_status tm__memory_tenants(tm_store_conn *c, tm_slice after, size_t limit, tm_tenant_fn fn,
                             void *ud, tm_error *err) {
  (void)err;
  tm_slice name = after.ptr != NULL ? after : TM_S("");
  for (size_t i = 0; i < limit;) {
    tm__memory_lock(c->store);
    tm_order_node *n = tm__order_above(&c->store->tenants, 0, name);
    tm_tenant_record *t = n != NULL ? TM_RECORD(tm_tenant_record, by_name, n) : NULL;
    bool listed = t != NULL && t->listed;
    int64_t wake_at = listed ? t->wake_at : 0;
    if (t != NULL) name = n->text;
    tm__memory_unlock(c->store);
    if (t == NULL) break;
    tm_status status = listed ? fn(ud, name, wake_at) : TM_OK;
    if (status != TM_OK) return status;
    i += listed;
  }
  return TM_OK;
}
