/* store_memory_write.c - commits, and what goes. Memory is had for all of a commit before anything
 * is changed; then nothing can fail. */
#include <stdlib.h>
#include <string.h>

#include "persistence/store_memory.h"

/* ---- what goes; under the lock ---- */

static size_t row_size(const tm_row_record *r) {
  return sizeof(*r) + sizeof(*r->body) + r->row.body.len;
}

static void schedule(tm_store *s, tm_head_record *h, int64_t wake_at) {
  if (h->head.wake_at > 0) tm__order_remove(&s->due, &h->by_due);
  h->head.wake_at = wake_at;
  h->by_due.number = wake_at;
  if (wake_at > 0) tm__order_insert(&s->due, &h->by_due);
}

static void forget_key(tm_store *s, tm_key_record *k) {
  tm__order_remove(&s->keys, &k->by_key);
  tm__order_remove(&s->key_ages, &k->by_age);
  k->head->key = NULL;
  free(k);
}

/* What ended leaves when no event of it waits. */
static void list_end(tm_store *s, tm_head_record *h, bool over) {
  bool ends = (over || h->head.ended > 0) && !tm__memory_events_wait(s, tm__slice(h->head.id));
  h->in_over = ends && over;
  h->in_end = ends && h->head.ended > 0;
  if (h->in_over) tm__order_insert(&s->over, &h->by_over);
  if (h->in_end) tm__order_insert(&s->ended, &h->by_end);
}

static void unlist_end(tm_store *s, tm_head_record *h) {
  if (h->in_over) tm__order_remove(&s->over, &h->by_over);
  if (h->in_end) tm__order_remove(&s->ended, &h->by_end);
  h->in_over = h->in_end = false;
}

static void set_over(tm_store *s, tm_head_record *h, bool over, int64_t ended) {
  unlist_end(s, h);
  h->by_over.number = ++s->overs;
  h->by_end.number = h->head.ended = ended;
  list_end(s, h, over);
}

void tm__memory_events_changed(tm_store *s, tm_slice conversation) {
  tm_head_record *h = tm__memory_find_head(s, conversation);
  if (h == NULL) return;
  unlist_end(s, h);
  list_end(s, h, tm__conversation_is_over(h->head.status));
}

/* Takes the newest row out of the list and the set. */
static tm_row_record *pop_row(tm_store *s, tm_row_record **newest) {
  tm_row_record *r = *newest;
  *newest = r->before;
  s->bytes -= row_size(r);
  tm__order_remove(&s->rows, &r->by_id);
  return r;
}

static void free_row(tm_row_record *r) {
  free(r->body);
  free(r);
}

void tm__memory_remove(tm_store *s, tm_head_record *h, bool rows) {
  while (rows && h->newest != NULL)
    free_row(pop_row(s, &h->newest));
  tm_row_record *oldest = h->newest;
  while (oldest != NULL && oldest->before != NULL)
    oldest = oldest->before;
  if (oldest != NULL) {
    oldest->before = s->purged;
    s->purged = h->newest;
  }
  schedule(s, h, 0);
  set_over(s, h, false, 0);
  if (h->key != NULL) forget_key(s, h->key);
  tm__memory_events_purge(s, tm__slice(h->head.id));
  s->bytes -= sizeof(*h);
  tm__order_remove(&s->in_session, &h->by_session);
  tm__order_remove(&s->heads, &h->by_id);
  free(h);
}

void tm__memory_tidy(tm_store *s, size_t limit) {
  if (s->walks > 0) return;
  for (; limit > 0 && s->purged != NULL; limit--)
    free_row(pop_row(s, &s->purged));
  while (s->leftovers != NULL) {
    tm_leftover *l = s->leftovers;
    s->leftovers = l->next;
    free(l);
  }
}

/* The conversation that ended first, and its session unless another one is in it. */
static void evict(tm_store *s, tm_head_record *h) {
  tm_session_name name;
  bool named =
      tm__memory_session_name(&name, tm__slice(h->head.tenant), tm__slice(h->head.session));
  tm__memory_remove(s, h, true);
  tm_session_record *r = named ? tm__memory_find_session(s, &name) : NULL;
  if (r != NULL && !tm__memory_session_in_use(s, &name)) tm__memory_session_remove(s, r);
}

static void make_room(tm_store *s) {
  while (s->bytes_max != 0 && s->bytes > s->bytes_max && s->walks == 0) {
    tm_order_node *n = tm__order_above(&s->over, 0, TM_S(""));
    if (n == NULL && s->purged == NULL) return;
    if (n != NULL) evict(s, TM_RECORD(tm_head_record, by_over, n));
    tm__memory_tidy(s, 64);
  }
}

/* ---- drafts ---- */

typedef struct draft { /* what one item may need; what it took is NULL */
  tm_head_record *head;
  tm_key_record *key;
  tm_session_record *session;
  tm_tenant_record *tenant;
  tm_row_record *row;
  tm_event_record **events;
  size_t event_count;
} draft;

static void draft_free(draft *d) {
  free(d->head);
  free(d->key);
  free(d->session);
  free(d->tenant);
  if (d->row != NULL) free_row(d->row);
  for (size_t i = 0; i < d->event_count; i++)
    free(d->events[i]);
  free(d->events);
}

static tm_body_record *body_new(tm_slice body) {
  tm_body_record *b = malloc(sizeof(*b) + body.len);
  if (b != NULL && body.len > 0) memcpy(b->bytes, body.ptr, body.len);
  return b;
}

static tm_row_record *row_new(const tm_commit *item) {
  const tm_row *row = item->row;
  tm_row_record *r = malloc(sizeof(*r));
  tm_body_record *body = r != NULL ? body_new(row->body) : NULL;
  if (body == NULL) {
    free(r);
    return NULL;
  }
  r->body = body;
  r->row = *row;
  memcpy(r->row.conversation, item->head.id, sizeof(r->row.conversation));
  r->row.revision = item->head.revision;
  r->row.body.ptr = body->bytes;
  return r;
}

static tm_session_record *session_new(const tm_commit *item) {
  tm_session session = *item->session;
  session.tenant = tm__slice(item->head.tenant);
  session.id = tm__slice(item->head.session);
  session.ended = 0;
  return tm__memory_session_new(&session);
}

static bool fill_events(draft *d, const tm_commit *item) {
  tm_outgoing event;
  if (item->event_count == 0) return true;
  d->events = calloc(item->event_count, sizeof(tm_event_record *));
  if (d->events == NULL) return false;
  for (; d->event_count < item->event_count; d->event_count++) {
    tm__outgoing_of(&event, item, d->event_count);
    d->events[d->event_count] = tm__memory_event_new(&event);
    if (d->events[d->event_count] == NULL) return false;
  }
  return true;
}

static bool draft_fill(const tm_store *s, draft *d, const tm_commit *item) {
  if (tm__commit_check(item, s->record_bytes_max) != TM_OK) return true;
  bool starts = item->expect_revision == 0;
  bool row = item->row != NULL;
  bool session = starts && item->session != NULL;
  bool key = starts && item->start_key != 0;
  if (starts) d->head = calloc(1, sizeof(*d->head));
  if (row) d->row = row_new(item);
  if (key) d->key = calloc(1, sizeof(*d->key));
  if (session) d->session = session_new(item);
  if (session) d->tenant = tm__memory_tenant_new(tm__slice(item->head.tenant));
  return fill_events(d, item) && (!starts || d->head != NULL) && (!row || d->row != NULL) &&
         (!key || d->key != NULL) && (!session || (d->session != NULL && d->tenant != NULL));
}

/* ---- applying one ---- */

static tm_head_record *add_head(tm_store *s, const tm_commit *item, draft *d) {
  tm_head_record *h = d->head;
  tm_session_name name = {.len = 0};
  d->head = NULL;
  h->head = item->head;
  h->head.tip = 0;
  h->head.wake_at = h->head.ended = 0; /* schedule() and set_over() set them */
  h->head.status = TM_ACTIVE;
  h->by_id.text = h->by_due.text = h->by_over.text = h->by_end.text = tm__slice(h->head.id);
  (void)tm__memory_session_name(&name, tm__slice(h->head.tenant), tm__slice(h->head.session));
  memcpy(h->session_name, name.text, name.len); /* its NUL is there */
  memcpy(h->session_name + name.len + 1, h->head.id, h->by_id.text.len);
  h->by_session.text = (tm_slice){h->session_name, name.len + 1 + h->by_id.text.len};
  s->bytes += sizeof(*h);
  tm__order_insert(&s->heads, &h->by_id);
  tm__order_insert(&s->in_session, &h->by_session);
  return h;
}

static void update_head(tm_store *s, tm_head_record *h, const tm_commit *item, int64_t row_id) {
  tm_head *have = &h->head;
  const tm_head *will = &item->head;
  schedule(s, h, will->wake_at);
  set_over(s, h, tm__conversation_is_over(will->status), will->ended);
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

static int64_t add_row(tm_store *s, tm_head_record *h, draft *d) {
  tm_row_record *r = d->row;
  d->row = NULL;
  r->row.id = r->by_id.number = ++s->newest_row;
  if (r->row.parent == TM_TIP) r->row.parent = h->newest != NULL ? h->newest->row.id : 0;
  r->by_id.text = TM_S("");
  r->before = h->newest;
  h->newest = r;
  tm__order_insert(&s->rows, &r->by_id);
  s->bytes += row_size(r);
  return r->row.id;
}

static void add_events(tm_store *s, draft *d, tm_slice conversation) {
  for (size_t i = 0; i < d->event_count; i++) {
    tm__memory_event_add(s, d->events[i]);
    tm__memory_events_arm(s, conversation, d->events[i]->event.created);
    d->events[i] = NULL;
  }
  if (d->event_count > 0) tm__memory_events_changed(s, conversation);
}

/* The first conversation of a session says what is kept of it. */
static void join_session(tm_store *s, draft *d) {
  tm_session_name name;
  const tm_session *will = &d->session->session;
  if (!tm__memory_session_name(&name, will->tenant, will->id)) return;
  tm_session_record *r = tm__memory_find_session(s, &name);
  if (r != NULL) {
    if (r->session.ended != 0) tm__memory_session_reopen(s, r, will->look_at);
    return;
  }
  if (tm__memory_find_tenant(s, will->tenant) == NULL) {
    tm__memory_tenant_add(s, d->tenant);
    d->tenant = NULL;
  }
  tm__memory_session_add(s, d->session);
  d->session = NULL;
}

static void add_key(tm_store *s, tm_head_record *h, const tm_commit *item, draft *d, int64_t now) {
  tm_key_record *k = d->key;
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

static tm_key_record *oldest_key(const tm_store *s, int64_t now) {
  tm_order_node *n = tm__order_above(&s->key_ages, INT64_MIN, TM_S(""));
  tm_key_record *k = n != NULL ? TM_RECORD(tm_key_record, by_age, n) : NULL;
  return k != NULL && tm__memory_key_is_old(k, now) ? k : NULL;
}

static void forget_old_keys(tm_store *s, int64_t now, size_t limit) {
  tm_key_record *k;
  for (; limit > 0 && (k = oldest_key(s, now)) != NULL; limit--)
    forget_key(s, k);
}

static bool session_fits(const tm_store *s, const tm_commit *item) {
  tm_session_name name;
  if (item->session == NULL ||
      !tm__memory_session_name(&name, tm__slice(item->head.tenant), tm__slice(item->head.session)))
    return true;
  const tm_session_record *r = tm__memory_find_session(s, &name);
  if (r != NULL && r->session.ended == 0) return true;
  const tm_tenant_record *t = tm__memory_find_tenant(s, tm__slice(item->head.tenant));
  int64_t own = t != NULL ? t->sessions : 0;
  return (item->sessions_max <= 0 || s->sessions_open < item->sessions_max) &&
         (item->tenant_sessions_max <= 0 || own < item->tenant_sessions_max);
}

/* Those that have ended, and have nothing more to tell, leave at the next commit. */
static bool is_full(const tm_store *s) {
  return s->bytes_max != 0 && s->bytes > s->bytes_max && s->over.root == NULL && s->purged == NULL;
}

/* The head that the item may change, or make (*h NULL). */
static tm_status judge(tm_store *s, const tm_commit *item, const draft *d, int64_t now,
                       tm_head_record **h) {
  *h = NULL;
  tm_status status = tm__commit_check(item, s->record_bytes_max);
  if (status != TM_OK) return status;
  *h = tm__memory_find_head(s, tm__slice(item->head.id));
  if (*h == NULL ? d->head == NULL : (*h)->head.revision != item->expect_revision)
    return TM_ECONFLICT;
  if (item->expect_revision != 0) return TM_OK;
  tm_key_record *k = item->start_key != 0
                         ? tm__memory_find_key(s, tm__slice(item->head.tenant), item->start_key)
                         : NULL;
  if (k != NULL && !tm__memory_key_is_old(k, now)) return TM_ECONFLICT;
  if (is_full(s) || !session_fits(s, item)) return TM_ELIMIT;
  if (k != NULL) forget_key(s, k);
  return TM_OK;
}

static void apply(tm_store *s, tm_commit *item, draft *d, int64_t now) {
  tm_head_record *h;
  item->row_id = 0;
  if ((item->status = judge(s, item, d, now, &h)) != TM_OK) return;
  if (h == NULL) h = add_head(s, item, d);
  if (d->row != NULL) item->row_id = add_row(s, h, d);
  update_head(s, h, item, item->row_id);
  if (d->key != NULL) {
    add_key(s, h, item, d, now);
    forget_old_keys(s, now, 32);
  }
  if (item->start_answer && h->key != NULL && h->key->answer == 0) h->key->answer = item->row_id;
  if (d->session != NULL) join_session(s, d);
  add_events(s, d, tm__slice(h->head.id));
}

tm_status tm__memory_commit(tm_store_conn *c, tm_commit *const *items, size_t count,
                            tm_error *err) {
  tm_store *s = c->store;
  int64_t now = s->now_ms(s->now_ud);
  draft *drafts = calloc(count + 1, sizeof(*drafts));
  bool ok = drafts != NULL;
  for (size_t i = 0; ok && i < count; i++)
    ok = draft_fill(s, &drafts[i], items[i]);
  tm__memory_lock(s);
  make_room(s);
  for (size_t i = 0; ok && i < count; i++)
    apply(s, items[i], &drafts[i], now);
  tm__memory_unlock(s);
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

/* ---- purge, sweep, rewrite ---- */

tm_status tm__memory_purge(tm_store_conn *c, tm_slice id, int64_t expect_revision, bool undelivered,
                           tm_error *err) {
  tm__memory_lock(c->store);
  tm_head_record *h = tm__memory_find_head(c->store, id);
  bool found = h != NULL, same = found && h->head.revision == expect_revision &&
                                 (undelivered || !tm__memory_events_wait(c->store, id));
  if (same) tm__memory_remove(c->store, h, false);
  tm__memory_unlock(c->store);
  if (!found) return tm__memory_not_found(err, "conversation");
  if (same) return TM_OK;
  return tm__purge_conflict(id, err);
}

tm_status tm__memory_sweep(tm_store_conn *c, size_t limit, bool *more, tm_error *err) {
  (void)err;
  tm_store *s = c->store;
  int64_t now = s->now_ms(s->now_ud);
  tm__memory_lock(s);
  tm__memory_tidy(s, limit);
  forget_old_keys(s, now, limit);
  *more = s->purged != NULL || s->leftovers != NULL || oldest_key(s, now) != NULL;
  tm__memory_unlock(s);
  return TM_OK;
}

/* Puts the body there; what it replaces, or the body itself if its row is gone, is left over. */
static void rewrite_row(tm_store *s, const tm_row *row, tm_body_record *body) {
  tm_row_record *r = tm__memory_find_row(s, row->id);
  tm_body_record *old = body;
  if (r != NULL && strcmp(r->row.conversation, row->conversation) == 0) {
    old = r->body;
    s->bytes = s->bytes - r->row.body.len + row->body.len;
    r->body = body;
    r->row.flags = row->flags;
    r->row.body = (tm_slice){body->bytes, row->body.len};
  }
  old->leftover.next = s->leftovers;
  s->leftovers = &old->leftover;
}

tm_status tm__memory_rewrite(tm_store_conn *c, const tm_row *rows, size_t count, tm_error *err) {
  tm_store *s = c->store;
  size_t most = s->record_bytes_max != 0 ? s->record_bytes_max : TM_ROW_MAX, n = 0;
  tm_body_record **bodies = calloc(count + 1, sizeof(*bodies));
  if (bodies == NULL) return tm__fail_memory(err, "other bodies");
  tm_status status = TM_OK;
  for (; status == TM_OK && n < count; n++) {
    if (rows[n].body.len > most)
      status = tm__fail(err, TM_ETOOLARGE, "store.too_large",
                        "row %lld of conversation %s would have %zu bytes, more than a store keeps",
                        (long long)rows[n].id, rows[n].conversation, rows[n].body.len);
    else if ((bodies[n] = body_new(rows[n].body)) == NULL)
      status = tm__fail_memory(err, "other bodies");
  }
  tm__memory_lock(s);
  for (size_t i = 0; status == TM_OK && i < count && bodies[i] != NULL; i++) {
    rewrite_row(s, &rows[i], bodies[i]);
    bodies[i] = NULL;
  }
  tm__memory_tidy(s, 0);
  tm__memory_unlock(s);
  for (size_t i = 0; i < n; i++)
    free(bodies[i]);
  free(bodies);
  return status;
}
