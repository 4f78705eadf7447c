/* store_memory.c - nothing survives the process; the rules are those of every other backend. One
 * lock guards all. What a walk lends is not freed while any walk is under way. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/named_text.h"
#include "persistence/store.h"

typedef struct row_record {
  tm_order_node by_id;       /* id, "" */
  struct row_record *before; /* the conversation's row before it */
  tm_row row;
  char body[];
} row_record;

typedef struct key_record { /* of a start */
  tm_order_node by_key;     /* key, tenant */
  tm_order_node by_age;     /* created, conversation */
  struct head_record *head;
  uint64_t body;
  int64_t answer;
} key_record;

typedef struct head_record {
  tm_order_node by_id;    /* 0, id */
  tm_order_node by_due;   /* wake_at, id; in the set while wake_at > 0 */
  tm_order_node by_end;   /* in which order they ended, id; in the set while it is over */
  key_record *key;        /* NULL: started without one, or it is forgotten */
  tm_named_text *session; /* NULL: none was given */
  row_record *newest;
  tm_head head;
} head_record;

struct tm_store {
  pthread_mutex_t lock;
  tm_order heads, due, over, keys, key_ages, rows;
  tm_order sessions, scripts; /* of tm_named_text */
  int64_t newest_row, ended;  /* how many there were */
  size_t walks;               /* under way, without the lock */
  size_t bytes, bytes_max;    /* held by conversations; 0: no limit */
  int64_t (*now_ms)(void *ud);
  void *now_ud;
};

struct tm_store_conn {
  tm_store *store;
};

#define RECORD(type, member, node) ((type *)(void *)((char *)(node)-offsetof(type, member)))

static tm_status not_found(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}

/* ---- conversations and what hangs on them; under the lock ---- */

static size_t row_size(const row_record *r) {
  return sizeof(*r) + r->row.body.len;
}

static size_t session_size(const tm_named_text *t) {
  return sizeof(*t) + t->name_len + t->first_len + t->second_len;
}

static row_record *find_row(const tm_store *s, int64_t id) {
  tm_order_node *n = tm__order_find(&s->rows, id, TM_S(""));
  return n != NULL ? RECORD(row_record, by_id, n) : NULL;
}

static void schedule(tm_store *s, head_record *h, int64_t wake_at) {
  if (h->head.wake_at > 0) tm__order_remove(&s->due, &h->by_due);
  h->head.wake_at = wake_at;
  h->by_due.number = wake_at;
  if (wake_at > 0) tm__order_insert(&s->due, &h->by_due);
}

static void forget_key(tm_store *s, key_record *k) {
  tm__order_remove(&s->keys, &k->by_key);
  tm__order_remove(&s->key_ages, &k->by_age);
  k->head->key = NULL;
  free(k);
}

static void set_over(tm_store *s, head_record *h, bool over) {
  if (tm__conversation_is_over(h->head.status)) tm__order_remove(&s->over, &h->by_end);
  h->by_end.number = ++s->ended;
  if (over) tm__order_insert(&s->over, &h->by_end);
}

static void remove_conversation(tm_store *s, head_record *h) {
  for (row_record *r = h->newest, *before; r != NULL; r = before) {
    before = r->before;
    s->bytes -= row_size(r);
    tm__order_remove(&s->rows, &r->by_id);
    free(r);
  }
  schedule(s, h, 0);
  set_over(s, h, false);
  if (h->key != NULL) forget_key(s, h->key);
  if (h->session != NULL && --h->session->users == 0) {
    s->bytes -= session_size(h->session);
    tm__order_remove(&s->sessions, &h->session->node);
    free(h->session);
  }
  s->bytes -= sizeof(*h);
  tm__order_remove(&s->heads, &h->by_id);
  free(h);
}

static void make_room(tm_store *s) {
  while (s->bytes_max != 0 && s->bytes > s->bytes_max && s->walks == 0) {
    tm_order_node *n = tm__order_above(&s->over, 0, TM_S(""));
    if (n == NULL) return;
    remove_conversation(s, RECORD(head_record, by_end, n));
  }
}

/* ---- life ---- */

static tm_status memory_open(tm_store **out, const tm_store_options *o, tm_error *err) {
  *out = NULL;
  tm_store *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  if (pthread_mutex_init(&s->lock, NULL) != 0) {
    free(s);
    return tm__fail_memory(err, "the store's lock");
  }
  s->bytes_max = o->memory_bytes;
  s->now_ms = o->now_ms;
  s->now_ud = o->now_ud;
  *out = s;
  return TM_OK;
}

static void memory_close(tm_store *s) {
  if (s == NULL) return;
  while (s->heads.root != NULL)
    remove_conversation(s, RECORD(head_record, by_id, s->heads.root));
  tm__named_text_clear(&s->sessions);
  tm__named_text_clear(&s->scripts);
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

/* ---- commits: memory is had for all before anything is changed, then nothing can fail ---- */

typedef struct draft { /* what one item may need; what it took is NULL */
  head_record *head;
  key_record *key;
  tm_named_text *session;
  row_record *row;
} draft;

static void draft_free(draft *d) {
  free(d->head);
  free(d->key);
  free(d->session);
  free(d->row);
}

static row_record *row_new(const tm_commit *item) {
  const tm_row *row = item->row;
  row_record *r = malloc(sizeof(*r) + row->body.len);
  if (r == NULL) return NULL;
  r->row = *row;
  memcpy(r->row.conversation, item->head.id, sizeof(r->row.conversation));
  r->row.revision = item->head.revision;
  if (row->body.len > 0) memcpy(r->body, row->body.ptr, row->body.len);
  r->row.body.ptr = r->body;
  return r;
}

static bool draft_fill(draft *d, const tm_commit *item) {
  if (tm__commit_check(item) != TM_OK) return true;
  bool starts = item->expect_revision == 0;
  bool row = item->row != NULL;
  bool session = starts && item->session != NULL;
  bool key = starts && item->start_key != 0;
  if (starts) d->head = calloc(1, sizeof(*d->head));
  if (row) d->row = row_new(item);
  if (key) d->key = calloc(1, sizeof(*d->key));
  if (session)
    d->session = tm__named_text_new(tm__slice(item->head.tenant), tm__slice(item->head.session),
                                    item->session->user_id, item->session->metadata);
  return (!starts || d->head != NULL) && (!row || d->row != NULL) && (!key || d->key != NULL) &&
         (!session || d->session != NULL);
}

static head_record *find_head(const tm_store *s, tm_slice id) {
  tm_order_node *n = tm__order_find(&s->heads, 0, id);
  return n != NULL ? RECORD(head_record, by_id, n) : NULL;
}

static head_record *add_head(tm_store *s, const tm_commit *item, draft *d) {
  head_record *h = d->head;
  d->head = NULL;
  h->head = item->head;
  h->head.tip = 0;
  h->head.wake_at = 0; /* schedule() sets it */
  h->head.status = TM_ACTIVE;
  h->by_id.text = h->by_due.text = h->by_end.text = tm__slice(h->head.id);
  s->bytes += sizeof(*h);
  tm__order_insert(&s->heads, &h->by_id);
  return h;
}

static void update_head(tm_store *s, head_record *h, const tm_commit *item, int64_t row_id) {
  tm_head *have = &h->head;
  const tm_head *will = &item->head;
  schedule(s, h, will->wake_at);
  set_over(s, h, tm__conversation_is_over(will->status));
  memcpy(have->flow, will->flow, sizeof(have->flow));
  memcpy(have->version, will->version, sizeof(have->version));
  memcpy(have->step, will->step, sizeof(have->step));
  memcpy(have->claim, will->claim, sizeof(have->claim));
  memcpy(have->recent, will->recent, sizeof(have->recent));
  have->status = will->status;
  have->revision = will->revision;
  if (row_id != 0) have->tip = row_id;
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    if (have->recent[i].row == TM_THIS_ROW) have->recent[i].row = row_id;
}

static int64_t add_row(tm_store *s, head_record *h, draft *d) {
  row_record *r = d->row;
  d->row = NULL;
  r->row.id = r->by_id.number = ++s->newest_row;
  r->by_id.text = TM_S("");
  r->before = h->newest;
  h->newest = r;
  tm__order_insert(&s->rows, &r->by_id);
  s->bytes += row_size(r);
  return r->row.id;
}

/* The first conversation of a session says what is kept of it. */
static void join_session(tm_store *s, head_record *h, draft *d) {
  tm_named_text *t = d->session;
  tm_order_node *n = tm__order_find(&s->sessions, 0, t->node.text);
  if (n == NULL) {
    tm__order_insert(&s->sessions, &t->node);
    s->bytes += session_size(t);
    d->session = NULL;
  } else {
    t = RECORD(tm_named_text, node, n);
  }
  t->users++;
  h->session = t;
}

static key_record *find_key(const tm_store *s, tm_slice tenant, uint64_t key) {
  tm_order_node *n = tm__order_find(&s->keys, (int64_t)key, tenant);
  return n != NULL ? RECORD(key_record, by_key, n) : NULL;
}

static bool is_old(const key_record *k, int64_t now) {
  return k->by_age.number < now - TM_KEY_AGE_MS;
}

static void add_key(tm_store *s, head_record *h, const tm_commit *item, draft *d, int64_t now) {
  key_record *k = d->key;
  d->key = NULL;
  k->by_key.number = (int64_t)item->start_key;
  k->by_key.text = tm__slice(h->head.tenant);
  k->by_age.number = now;
  k->by_age.text = tm__slice(h->head.id);
  k->body = item->start_body;
  k->head = h;
  h->key = k;
  tm__order_insert(&s->keys, &k->by_key);
  tm__order_insert(&s->key_ages, &k->by_age);
}

static void forget_old_keys(tm_store *s, int64_t now) {
  for (int i = 0; i < 32; i++) {
    tm_order_node *n = tm__order_above(&s->key_ages, INT64_MIN, TM_S(""));
    if (n == NULL) return;
    key_record *k = RECORD(key_record, by_age, n);
    if (!is_old(k, now)) return;
    forget_key(s, k);
  }
}

/* The head that the item may change, or make (*h NULL). */
static tm_status judge(tm_store *s, const tm_commit *item, const draft *d, int64_t now,
                       head_record **h) {
  *h = NULL;
  tm_status status = tm__commit_check(item);
  if (status != TM_OK) return status;
  *h = find_head(s, tm__slice(item->head.id));
  if (*h == NULL ? d->head == NULL : (*h)->head.revision != item->expect_revision)
    return TM_ECONFLICT;
  if (item->expect_revision != 0 || item->start_key == 0) return TM_OK;
  key_record *k = find_key(s, tm__slice(item->head.tenant), item->start_key);
  if (k != NULL && !is_old(k, now)) return TM_ECONFLICT;
  if (k != NULL) forget_key(s, k);
  return TM_OK;
}

/* Those that have ended leave at the next commit. */
static bool is_full(const tm_store *s) {
  return s->bytes_max != 0 && s->bytes > s->bytes_max && s->over.root == NULL;
}

static void apply(tm_store *s, tm_commit *item, draft *d, int64_t now) {
  head_record *h;
  item->row_id = 0;
  if ((item->status = judge(s, item, d, now, &h)) != TM_OK) return;
  if (h == NULL && is_full(s)) item->status = TM_ELIMIT;
  if (item->status != TM_OK) return;
  if (h == NULL) h = add_head(s, item, d);
  if (d->row != NULL) item->row_id = add_row(s, h, d);
  update_head(s, h, item, item->row_id);
  if (d->key != NULL) {
    add_key(s, h, item, d, now);
    forget_old_keys(s, now);
  }
  if (item->start_answer && h->key != NULL && h->key->answer == 0) h->key->answer = item->row_id;
  if (d->session != NULL) join_session(s, h, d);
}

static tm_status memory_commit(tm_store_conn *c, tm_commit *const *items, size_t count,
                               tm_error *err) {
  tm_store *s = c->store;
  int64_t now = s->now_ms(s->now_ud);
  draft *drafts = calloc(count + 1, sizeof(*drafts));
  bool ok = drafts != NULL;
  for (size_t i = 0; ok && i < count; i++)
    ok = draft_fill(&drafts[i], items[i]);
  (void)pthread_mutex_lock(&s->lock);
  make_room(s);
  for (size_t i = 0; ok && i < count; i++)
    apply(s, items[i], &drafts[i], now);
  (void)pthread_mutex_unlock(&s->lock);
  for (size_t i = 0; drafts != NULL && i < count; i++)
    draft_free(&drafts[i]);
  free(drafts);
  if (ok) return TM_OK;
  for (size_t i = 0; i < count; i++) {
    items[i]->status = TM_ENOMEM;
    items[i]->row_id = 0;
  }
  return tm__fail_memory(err, "a commit");
}

/* ---- reads ---- */

static tm_status memory_head(tm_store_conn *c, tm_slice id, tm_head *out, tm_error *err) {
  (void)pthread_mutex_lock(&c->store->lock);
  const head_record *h = find_head(c->store, id);
  if (h != NULL) *out = h->head;
  (void)pthread_mutex_unlock(&c->store->lock);
  return h != NULL ? TM_OK : not_found(err, "conversation");
}

/* What is lent between the two stays as it is. */
static void begin_walk(tm_store *s) {
  (void)pthread_mutex_lock(&s->lock);
  s->walks++;
  (void)pthread_mutex_unlock(&s->lock);
}

static void end_walk(tm_store *s) {
  (void)pthread_mutex_lock(&s->lock);
  s->walks--;
  (void)pthread_mutex_unlock(&s->lock);
}

static const row_record *lend_row(tm_store *s, int64_t id) {
  (void)pthread_mutex_lock(&s->lock);
  const row_record *r = find_row(s, id);
  (void)pthread_mutex_unlock(&s->lock);
  return r;
}

static tm_status walk_chain(tm_store *s, int64_t row, bool follow_base, tm_row_fn fn, void *ud,
                            tm_error *err) {
  for (int64_t at = row, next; at != 0; at = next) {
    const row_record *r = lend_row(s, at);
    if (r == NULL) return at == row ? not_found(err, "journal row") : TM_OK;
    tm_status status = fn(ud, &r->row);
    if (status != TM_OK) return status;
    next = follow_base && r->row.base != 0 ? r->row.base : r->row.parent;
    if (next >= at)
      return tm__fail(err, TM_ECORRUPT, "store.damaged",
                      "the journal turns in a circle at row %lld", (long long)at);
  }
  return TM_OK;
}

static tm_status memory_chain(tm_store_conn *c, int64_t row, bool follow_base, tm_row_fn fn,
                              void *ud, tm_error *err) {
  begin_walk(c->store);
  tm_status status = walk_chain(c->store, row, follow_base, fn, ud, err);
  end_walk(c->store);
  return status;
}

static bool matches(const tm_head *h, const tm_list_filter *f) {
  return tm__slice_is(f->tenant, h->tenant) &&
         (f->session.ptr == NULL || tm__slice_is(f->session, h->session)) &&
         (f->system.ptr == NULL || tm__slice_is(f->system, h->system)) &&
         (f->flow.ptr == NULL || tm__slice_is(f->flow, h->flow)) &&
         (f->status < 0 || (int)h->status == f->status);
}

/* The newest head before `before` that matches, copied; false at the end. */
static bool next_match(tm_store *s, const tm_list_filter *f, const char *before, tm_head *out) {
  (void)pthread_mutex_lock(&s->lock);
  tm_order_node *n = before[0] != '\0' ? tm__order_below(&s->heads, 0, tm__slice(before))
                                       : tm__order_below(&s->heads, 1, TM_S(""));
  while (n != NULL && !matches(&RECORD(head_record, by_id, n)->head, f))
    n = tm__order_below(&s->heads, 0, n->text);
  if (n != NULL) *out = RECORD(head_record, by_id, n)->head;
  (void)pthread_mutex_unlock(&s->lock);
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

/* The first head due after (wake_at, id), copied; false when there is none until `now`. */
static bool next_due(tm_store *s, int64_t now, int64_t wake_at, tm_slice id, tm_head *out) {
  (void)pthread_mutex_lock(&s->lock);
  tm_order_node *n = tm__order_above(&s->due, wake_at, id);
  bool found = n != NULL && n->number <= now;
  if (found) *out = RECORD(head_record, by_due, n)->head;
  (void)pthread_mutex_unlock(&s->lock);
  return found;
}

static tm_status memory_due(tm_store_conn *c, int64_t now, size_t limit, tm_head_fn fn, void *ud,
                            tm_error *err) {
  (void)err;
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

static tm_status memory_start_key(tm_store_conn *c, tm_slice tenant, uint64_t key,
                                  tm_start_key *out, tm_error *err) {
  tm_store *s = c->store;
  int64_t now = s->now_ms(s->now_ud);
  *out = (tm_start_key){0};
  (void)pthread_mutex_lock(&s->lock);
  const key_record *k = find_key(s, tenant, key);
  bool known = k != NULL && !is_old(k, now);
  if (known) {
    *out = (tm_start_key){.body = k->body, .row = k->answer, .created = k->by_age.number};
    memcpy(out->conversation, k->head->head.id, sizeof(out->conversation));
  }
  (void)pthread_mutex_unlock(&s->lock);
  return known ? TM_OK : not_found(err, "start key");
}

/* ---- sessions and scripts ---- */

static tm_status find_text(tm_store *s, const tm_order *set, tm_slice a, tm_slice b,
                           const tm_named_text **out, const char *what, tm_error *err) {
  (void)pthread_mutex_lock(&s->lock);
  bool looked = tm__named_text_find(set, a, b, out);
  (void)pthread_mutex_unlock(&s->lock);
  if (!looked) return tm__fail_memory(err, "a name in the store");
  return *out != NULL ? TM_OK : not_found(err, what);
}

static tm_status memory_session(tm_store_conn *c, tm_slice tenant, tm_slice id, tm_session_fn fn,
                                void *ud, tm_error *err) {
  const tm_named_text *t;
  begin_walk(c->store);
  tm_status status = find_text(c->store, &c->store->sessions, tenant, id, &t, "session", err);
  if (status == TM_OK) {
    tm_session session = {tm__named_text_first(t), tm__named_text_second(t)};
    status = fn(ud, &session);
  }
  end_walk(c->store);
  return status;
}

static tm_status memory_script_put(tm_store_conn *c, tm_slice system, tm_slice version,
                                   tm_slice sources, tm_error *err) {
  tm_named_text *t = tm__named_text_new(system, version, sources, (tm_slice){NULL, 0});
  if (t == NULL) return tm__fail_memory(err, "a script");
  (void)pthread_mutex_lock(&c->store->lock);
  bool added = tm__named_text_insert(&c->store->scripts, t);
  (void)pthread_mutex_unlock(&c->store->lock);
  if (!added) free(t);
  return TM_OK;
}

static tm_status memory_script_get(tm_store_conn *c, tm_slice system, tm_slice version, tm_buf *out,
                                   tm_error *err) {
  const tm_named_text *t;
  tm_status status =
      find_text(c->store, &c->store->scripts, system, version, &t, "version of the system", err);
  if (status != TM_OK) return status;
  tm__buf_slice(out, tm__named_text_first(t));
  return tm__buf_ok(out) ? TM_OK : tm__fail_memory(err, "a script");
}

const tm_store_backend tm__store_memory = {
    .abi = TM_STORE_ABI,
    .scheme = "memory",
    .durable = false,
    .open = memory_open,
    .close = memory_close,
    .connect = memory_connect,
    .disconnect = memory_disconnect,
    .recover = memory_recover,
    .probe = memory_probe,
    .commit = memory_commit,
    .head = memory_head,
    .chain = memory_chain,
    .list = memory_list,
    .due = memory_due,
    .next_due = memory_next_due,
    .start_key = memory_start_key,
    .session = memory_session,
    .script_put = memory_script_put,
    .script_get = memory_script_get,
};
