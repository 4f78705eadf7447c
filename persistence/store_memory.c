/* store_memory.c - nothing survives the process; the rules are those of every other backend: life,
 * heads, rows, lists, deadlines, start keys. */
#include "persistence/store_memory.h"

#include <stdlib.h>
#include <string.h>

tm_status tm__memory_not_found(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}

void tm__memory_lock(tm_store *s) {
  (void)pthread_mutex_lock(&s->lock);
}

void tm__memory_unlock(tm_store *s) {
  (void)pthread_mutex_unlock(&s->lock);
}

void tm__memory_begin_walk(tm_store *s) {
  tm__memory_lock(s);
  s->walks++;
  tm__memory_unlock(s);
}

void tm__memory_end_walk(tm_store *s) {
  tm__memory_lock(s);
  s->walks--;
  tm__memory_unlock(s);
}

/* ---- life ---- */

static tm_status memory_open(tm_store **out, const tm_store_options *o, tm_error *err) {
  *out = NULL;
  if (o->tenant != NULL && o->tenant[0] != '\0' && tm__store_tenant(o->tenant, err) != TM_OK)
    return TM_EINVAL;
  tm_store *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  if (pthread_mutex_init(&s->lock, NULL) != 0) {
    free(s);
    return tm__fail_memory(err, "the store's lock");
  }
  s->bytes_max = o->memory_bytes;
  s->record_bytes_max = o->record_bytes_max;
  s->now_ms = o->now_ms;
  s->now_ud = o->now_ud;
  *out = s;
  return TM_OK;
}

static void memory_close(tm_store *s) {
  if (s == NULL) return;
  while (s->heads.root != NULL)
    tm__memory_remove(s, TM_RECORD(tm_head_record, by_id, s->heads.root), true);
  while (s->sessions.root != NULL)
    tm__memory_session_remove(s, TM_RECORD(tm_session_record, by_name, s->sessions.root));
  tm__memory_tidy(s, SIZE_MAX);
  while (s->tenants.root != NULL) {
    tm_tenant_record *t = TM_RECORD(tm_tenant_record, by_name, s->tenants.root);
    tm__order_remove(&s->tenants, &t->by_name);
    free(t);
  }
  tm__named_text_clear(&s->scripts);
  tm__named_text_clear(&s->notes);
  (void)pthread_mutex_destroy(&s->lock);
  free(s);
}

static tm_status memory_connect(tm_store_conn **out, tm_store *s, tm_store_role role,
                                tm_error *err) {
  (void)role; /* every connection may do everything */
  tm_store_conn *c = *out = malloc(sizeof(*c));
  if (c == NULL) return tm__fail_memory(err, "a connection of the store");
  c->store = s;
  return TM_OK;
}

static void memory_disconnect(tm_store_conn *c) {
  free(c);
}

/* A host that died took this store with it. */
static tm_status memory_recover(tm_store_conn *c, int64_t now, int64_t *taken, tm_error *err) {
  (void)c, (void)now, (void)err;
  *taken = 0;
  return TM_OK;
}

static tm_status memory_probe(tm_store_conn *c, tm_error *err) {
  (void)c, (void)err;
  return TM_OK;
}

static tm_status memory_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud,
                                tm_error *err) {
  (void)c, (void)deep, (void)err;
  fn(ud, TM_FINDING_WARNING,
     "conversations are kept in memory only and end with the host: set "
     "workflow_persistence.backend to one that keeps them");
  return TM_OK;
}

/* ---- heads and rows ---- */

tm_head_record *tm__memory_find_head(const tm_store *s, tm_slice id) {
  tm_order_node *n = tm__order_find(&s->heads, 0, id);
  return n != NULL ? TM_RECORD(tm_head_record, by_id, n) : NULL;
}

tm_row_record *tm__memory_find_row(const tm_store *s, int64_t id) {
  tm_order_node *n = tm__order_find(&s->rows, id, TM_S(""));
  return n != NULL ? TM_RECORD(tm_row_record, by_id, n) : NULL;
}

static tm_status memory_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err) {
  tm__memory_lock(c->store);
  const tm_head_record *h = tm__memory_find_head(c->store, id);
  if (h != NULL) *out = h->head;
  tm__memory_unlock(c->store);
  return h != NULL ? TM_OK : tm__memory_not_found(err, "conversation");
}

/* The row, its body lent; false: the conversation has no such row. */
static bool lend_row(tm_store *s, tm_slice conversation, int64_t id, tm_row *out) {
  tm__memory_lock(s);
  const tm_row_record *r = tm__memory_find_row(s, id);
  bool found = r != NULL && tm__slice_is(conversation, r->row.conversation);
  if (found) *out = r->row;
  tm__memory_unlock(s);
  return found;
}

static tm_status walk_chain(tm_store *s, tm_slice conversation, int64_t row, bool follow_base,
                            tm_row_fn fn, void *ud, tm_error *err) {
  tm_row lent;
  for (int64_t at = row, next; at != 0; at = next) {
    if (!lend_row(s, conversation, at, &lent))
      return at == row ? tm__memory_not_found(err, "journal row") : TM_OK;
    tm_status status = fn(ud, &lent);
    if (status != TM_OK) return status;
    next = follow_base && lent.base != 0 ? lent.base : lent.parent;
    if (next >= at)
      return tm__fail(err, TM_ECORRUPT, "store.damaged",
                      "the journal turns in a circle at row %lld", (long long)at);
  }
  return TM_OK;
}

static tm_status memory_chain(tm_store_conn *c, tm_slice conversation, int64_t row,
                              bool follow_base, tm_row_fn fn, void *ud, tm_error *err) {
  tm__memory_begin_walk(c->store);
  tm_status status = walk_chain(c->store, conversation, row, follow_base, fn, ud, err);
  tm__memory_end_walk(c->store);
  return status;
}

/* ---- lists ---- */

static bool matches(const tm_head *h, const tm_list_filter *f) {
  return (f->tenant.ptr == NULL || tm__slice_is(f->tenant, h->tenant)) &&
         (f->session.ptr == NULL || tm__slice_is(f->session, h->session)) &&
         (f->system.ptr == NULL || tm__slice_is(f->system, h->system)) &&
         (f->flow.ptr == NULL || tm__slice_is(f->flow, h->flow)) &&
         (f->status < 0 || (int)h->status == f->status);
}

/* The newest head before `before` that matches, copied; false at the end. */
static bool next_match(tm_store *s, const tm_list_filter *f, const char *before, tm_head *out) {
  tm__memory_lock(s);
  tm_order_node *n = before[0] != '\0' ? tm__order_below(&s->heads, 0, tm__slice(before))
                                       : tm__order_below(&s->heads, 1, TM_S(""));
  while (n != NULL && !matches(&TM_RECORD(tm_head_record, by_id, n)->head, f))
    n = tm__order_below(&s->heads, 0, n->text);
  if (n != NULL) *out = TM_RECORD(tm_head_record, by_id, n)->head;
  tm__memory_unlock(s);
  return n != NULL;
}

static tm_status memory_list(tm_store_conn *c, const tm_list_filter *f, tm_head_fn fn, void *ud,
                             tm_error *err) {
  (void)err;
  tm_head head;
  const char *before = f->before;
  for (size_t i = 0; i < f->limit && next_match(c->store, f, before, &head); i++) {
    tm_status status = fn(ud, &head);
    if (status != TM_OK) return status;
    before = head.id;
  }
  return TM_OK;
}

/* ---- deadlines ---- */

/* The first head due after (wake_at, id), copied; false when there is none until `now`. */
static bool next_due(tm_store *s, int64_t now, int64_t wake_at, tm_slice id, tm_head *out) {
  tm__memory_lock(s);
  tm_order_node *n = tm__order_above(&s->due, wake_at, id);
  bool found = n != NULL && n->number <= now;
  if (found) *out = TM_RECORD(tm_head_record, by_due, n)->head;
  tm__memory_unlock(s);
  return found;
}

static tm_status memory_due(tm_store_conn *c, int64_t now, int64_t hold_ms, size_t limit,
                            tm_head_fn fn, void *ud, tm_error *err) {
  (void)err, (void)hold_ms; /* there is one host */
  tm_head head = {0};
  for (size_t i = 0; i < limit; i++) {
    if (!next_due(c->store, now, head.wake_at, tm__slice(head.id), &head)) break;
    tm_status status = fn(ud, &head);
    if (status != TM_OK) return status;
  }
  return TM_OK;
}

static tm_status memory_next_due(tm_store_conn *c, int64_t *out, tm_error *err) {
  (void)err;
  tm_head head;
  *out = next_due(c->store, INT64_MAX, 0, TM_S(""), &head) ? head.wake_at : 0;
  return TM_OK;
}

static tm_status memory_ended(tm_store_conn *c, int64_t before, size_t limit, tm_head_fn fn,
                              void *ud, tm_error *err) {
  (void)err;
  tm_store *s = c->store;
  tm_head head = {0};
  for (size_t i = 0; i < limit; i++) {
    tm__memory_lock(s);
    tm_order_node *n = tm__order_above(&s->ended, head.ended, tm__slice(head.id));
    bool found = n != NULL && n->number <= before;
    if (found) head = TM_RECORD(tm_head_record, by_end, n)->head;
    tm__memory_unlock(s);
    if (!found) break;
    tm_status status = fn(ud, &head);
    if (status != TM_OK) return status;
  }
  return TM_OK;
}

/* ---- start keys ---- */

tm_key_record *tm__memory_find_key(const tm_store *s, tm_slice tenant, uint64_t key) {
  tm_order_node *n = tm__order_find(&s->keys, (int64_t)key, tenant);
  return n != NULL ? TM_RECORD(tm_key_record, by_key, n) : NULL;
}

bool tm__memory_key_is_old(const tm_key_record *k, int64_t now) {
  return k->by_age.number < now - TM_KEY_AGE_MS;
}

static tm_status memory_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key,
                                  tm_start_key *out, tm_error *err) {
  tm_store *s = c->store;
  int64_t now = s->now_ms(s->now_ud);
  *out = (tm_start_key){0};
  tm__memory_lock(s);
  const tm_key_record *k = tm__memory_find_key(s, tenant, key);
  bool known = k != NULL && !tm__memory_key_is_old(k, now);
  if (known) {
    *out = (tm_start_key){.body = k->body, .row = k->answer, .created = k->by_age.number};
    memcpy(out->conversation, k->head->head.id, sizeof(out->conversation));
  }
  tm__memory_unlock(s);
  return known ? TM_OK : tm__memory_not_found(err, "start key");
}

static tm_status memory_key_of(tm_store_conn *c, tm_slice conversation, uint64_t *key,
                               tm_start_key *out, tm_error *err) {
  tm_store *s = c->store;
  int64_t now = s->now_ms(s->now_ud);
  *out = (tm_start_key){0};
  tm__memory_lock(s);
  const tm_head_record *h = tm__memory_find_head(s, conversation);
  const tm_key_record *k = h != NULL ? h->key : NULL;
  bool known = k != NULL && !tm__memory_key_is_old(k, now);
  if (known) {
    *key = (uint64_t)k->by_key.number;
    *out = (tm_start_key){.body = k->body, .row = k->answer, .created = k->by_age.number};
    memcpy(out->conversation, h->head.id, sizeof(out->conversation));
  }
  tm__memory_unlock(s);
  return known ? TM_OK : tm__memory_not_found(err, "start key");
}

const tm_store_backend tm__store_memory = {
    .abi = TM_STORE_ABI,
    .scheme = "memory",
    .durable = false,
    .takes_tip = true,
    .writers = 1,
    .open = memory_open,
    .close = memory_close,
    .connect = memory_connect,
    .disconnect = memory_disconnect,
    .recover = memory_recover,
    .probe = memory_probe,
    .commit = tm__memory_commit,
    .head = memory_head,
    .chain = memory_chain,
    .list = memory_list,
    .due = memory_due,
    .next_due = memory_next_due,
    .start_key = memory_start_key,
    .key_of = memory_key_of,
    .session = tm__memory_session,
    .sessions = tm__memory_sessions,
    .sessions_due = tm__memory_sessions_due,
    .session_put = tm__memory_session_put,
    .session_drop = tm__memory_session_drop,
    .outbox_take = tm__memory_outbox_take,
    .outbox_settle = tm__memory_outbox_settle,
    .outbox_next = tm__memory_outbox_next,
    .outbox_list = tm__memory_outbox_list,
    .outbox_put = tm__memory_outbox_put,
    .outbox_rewrite = tm__memory_outbox_rewrite,
    .ended = memory_ended,
    .purge = tm__memory_purge,
    .sweep = tm__memory_sweep,
    .rewrite = tm__memory_rewrite,
    .script_put = tm__memory_script_put,
    .script_get = tm__memory_script_get,
    .script_use = tm__memory_script_use,
    .script_drop = tm__memory_script_drop,
    .scripts = tm__memory_scripts,
    .note_put = tm__memory_note_put,
    .note_get = tm__memory_note_get,
    .note_swap = tm__memory_note_swap,
    .tenant_wake = tm__memory_tenant_wake,
    .tenants_due = tm__memory_tenants_due,
    .tenants = tm__memory_tenants,
    .inspect = memory_inspect,
};
