/* store_postgres_commit.c - commits: one transaction for many conversations, in which one that lost
 * its race leaves no trace. Every item is a statement that carries its own compare-and-set; they go
 * in the order of their ids, so that writers wait for each other and never in a circle. */
#include <stdlib.h>

#include "persistence/recent.h"
#include "persistence/store_postgres.h"

typedef struct group { /* a commit's items */
  tm_pg_work work;
  const tm_store *store;
  tm_commit **items; /* those that are sent, sorted */
  size_t count;
  size_t *owners; /* of each statement: its item, or SIZE_MAX */
  size_t statements;
  int64_t now;
} group;

/* ---- parameters ---- */

/* $1 to $11 of every statement on a head; `recent` must last as long as `a`. */
static void add_head(tm_pg_args *a, const tm_commit *item, char *recent) {
  const tm_head *h = &item->head;
  tm__pg_text(a, h->id);
  tm__pg_int(a, h->revision);
  tm__pg_int(a, item->row != NULL ? h->revision : 0);
  tm__pg_text(a, h->flow);
  tm__pg_text(a, h->version);
  tm__pg_text(a, h->step);
  tm__pg_bytes(a, tm__recent_encode(recent, h, h->revision));
  tm__pg_int(a, h->status);
  tm__pg_int(a, h->wake_at);
  tm__pg_text(a, h->claim);
  tm__pg_int(a, h->ended);
}

static void add_row(tm_pg_args *a, const tm_row *row) {
  tm__pg_int(a, row->parent);
  tm__pg_int(a, row->base);
  tm__pg_int(a, row->kind);
  tm__pg_int(a, row->created);
  tm__pg_int(a, row->checkpoint);
  tm__pg_int(a, row->flags);
  tm__pg_bytes(a, row->body.ptr != NULL ? row->body : TM_S(""));
}

static void add_key(tm_pg_args *a, const tm_commit *item, int64_t now) {
  tm__pg_int(a, (int64_t)item->start_key);
  tm__pg_int(a, (int64_t)item->start_body);
  tm__pg_int(a, item->start_answer && item->row != NULL ? item->head.revision : 0);
  tm__pg_int(a, now);
}

static void add_session(tm_pg_args *a, const tm_commit *item) {
  const tm_session none = {0}, *session = item->session != NULL ? item->session : &none;
  tm__pg_int(a, item->session != NULL);
  tm__pg_bytes(a, session->user_id);
  tm__pg_bytes(a, session->metadata);
  tm__pg_int(a, session->flags);
  tm__pg_int(a, session->created);
  tm__pg_int(a, session->look_at);
  tm__pg_int(a, item->session != NULL ? item->sessions_max : 0);
  tm__pg_int(a, item->session != NULL ? item->tenant_sessions_max : 0);
}

/* ---- statements ---- */

static bool send(group *g, PGconn *pg, tm_pg_sql which, const tm_pg_args *a, size_t owner) {
  g->owners[g->statements++] = owner;
  return tm__pg_send(pg, which, a);
}

/* The events are the last parameter of `which`, but for what a turn answers. */
static bool send_events(group *g, PGconn *pg, const tm_commit *item, tm_pg_sql which, tm_pg_args *a,
                        size_t owner) {
  tm_buf list = {0};
  tm_pg_args due = {0};
  tm__pg_events_json(&list, item);
  tm__pg_bytes(a, tm__buf_view(&list));
  if (which == TM_PG_TURN_EVENTS) tm__pg_int(a, item->start_answer);
  tm__pg_text(&due, item->head.id);
  tm__pg_int(&due, item->events[0].created > 0 ? item->events[0].created : 1);
  bool ok =
      tm__buf_ok(&list) && send(g, pg, which, a, owner) && send(g, pg, TM_PG_ARM, &due, SIZE_MAX);
  tm__buf_free(&list);
  return ok;
}

static bool send_change(group *g, PGconn *pg, const tm_commit *item, size_t owner) {
  char recent[TM_RECENT_BYTES];
  tm_pg_args a = {0};
  add_head(&a, item, recent);
  tm__pg_int(&a, item->expect_revision);
  if (item->row == NULL) return send(g, pg, TM_PG_TOUCH, &a, owner);
  add_row(&a, item->row);
  if (item->event_count > 0) return send_events(g, pg, item, TM_PG_TURN_EVENTS, &a, owner);
  return send(g, pg, item->start_answer ? TM_PG_TURN_ANSWER : TM_PG_TURN, &a, owner);
}

static bool send_forget(group *g, PGconn *pg, const tm_commit *item) {
  tm_pg_args rows = {0}, key = {0};
  tm__pg_text(&rows, item->head.id);
  tm__pg_text(&key, item->head.tenant);
  tm__pg_int(&key, (int64_t)item->start_key);
  tm__pg_int(&key, g->now - TM_KEY_AGE_MS);
  return send(g, pg, TM_PG_FORGET_ROWS, &rows, SIZE_MAX) &&
         (item->start_key == 0 || send(g, pg, TM_PG_FORGET_KEY, &key, SIZE_MAX));
}

static bool send_start(group *g, PGconn *pg, const tm_commit *item, size_t owner) {
  const tm_row none = {0};
  char recent[TM_RECENT_BYTES];
  tm_pg_args a = {0};
  add_head(&a, item, recent);
  tm__pg_text(&a, item->head.tenant);
  tm__pg_text(&a, item->head.session);
  tm__pg_text(&a, item->head.system);
  tm__pg_int(&a, item->head.created);
  tm__pg_int(&a, item->row != NULL);
  add_row(&a, item->row != NULL ? item->row : &none);
  add_key(&a, item, g->now);
  add_session(&a, item);
  if (!send_forget(g, pg, item)) return false;
  return item->event_count > 0 ? send_events(g, pg, item, TM_PG_START_EVENTS, &a, owner)
                               : send(g, pg, TM_PG_START, &a, owner);
}

static bool counts_sessions(const tm_commit *item) {
  return item->expect_revision == 0 && item->session != NULL &&
         (item->sessions_max > 0 || item->tenant_sessions_max > 0);
}

static bool send_group(tm_pg_work *w, PGconn *pg) {
  group *g = (group *)(void *)w;
  const tm_pg_args none = {0};
  bool ok = true, counts = false;
  g->statements = 0;
  for (size_t i = 0; i < g->count; i++)
    counts = counts || counts_sessions(g->items[i]);
  if (counts) ok = send(g, pg, TM_PG_LOCK_COUNT, &none, SIZE_MAX);
  for (size_t i = 0; ok && i < g->count; i++)
    ok = g->items[i]->expect_revision == 0 ? send_start(g, pg, g->items[i], i)
                                           : send_change(g, pg, g->items[i], i);
  return ok;
}

static void take_group(tm_pg_work *w, size_t index, PGresult *r) {
  static const tm_status statuses[] = {TM_ECONFLICT, TM_OK, TM_ELIMIT};
  group *g = (group *)(void *)w;
  size_t owner = index < g->statements ? g->owners[index] : SIZE_MAX;
  if (owner == SIZE_MAX) return;
  tm_commit *item = g->items[owner];
  int64_t answer = tm__pg_get_int(r, 0, 0);
  item->status = answer >= 0 && answer <= 2 ? statuses[answer] : TM_ECORRUPT;
  item->row_id = item->status == TM_OK && item->row != NULL ? item->head.revision : 0;
}

/* ---- the group ---- */

static bool has_texts(const tm_head *h) {
  const char *const texts[] = {h->id,   h->tenant,  h->session, h->system,
                               h->flow, h->version, h->step,    h->claim};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
    if (!tm__pg_is_text(tm__slice(texts[i]))) return false;
  return true;
}

static tm_status check(const tm_store *s, const tm_commit *item) {
  tm_status status = tm__commit_check(item, s->record_bytes_max);
  if (status != TM_OK) return status;
  return has_texts(&item->head) ? TM_OK : TM_EINVAL;
}

/* Insertion keeps the order of items of one conversation, and a group is nearly sorted or small. */
static void sort(tm_commit **items, size_t count) {
  for (size_t i = 1; i < count; i++) {
    tm_commit *item = items[i];
    size_t at = i;
    for (; at > 0 && strcmp(items[at - 1]->head.id, item->head.id) > 0; at--)
      items[at] = items[at - 1];
    items[at] = item;
  }
}

static tm_status fail_all(tm_commit *const *items, size_t count, tm_status status) {
  for (size_t i = 0; i < count; i++) {
    items[i]->status = status;
    items[i]->row_id = 0;
  }
  return status;
}

/* Those of the items that may be sent, in order. */
static tm_status fill(group *g, tm_commit *const *items, size_t count, tm_error *err) {
  g->items = calloc(count + 1, sizeof(tm_commit *));
  g->owners = calloc(4 * count + 1, sizeof(size_t));
  if (g->items == NULL || g->owners == NULL) return tm__fail_memory(err, "a commit");
  for (size_t i = 0; i < count; i++) {
    items[i]->row_id = 0;
    items[i]->status = check(g->store, items[i]);
    if (items[i]->status == TM_OK) g->items[g->count++] = items[i];
  }
  sort(g->items, g->count);
  return TM_OK;
}

tm_status tm__pg_commit(tm_store_conn *c, tm_commit *const *items, size_t count, tm_error *err) {
  const tm_store *s = c->store;
  group g = {.work = {"make a commit durable", send_group, take_group},
             .store = s,
             .now = s->now_ms(s->now_ud)};
  tm_status status = fill(&g, items, count, err);
  if (status == TM_OK && g.count > 0) status = tm__pg_write(c, &g.work, err);
  free(g.items);
  free(g.owners);
  return status == TM_OK ? TM_OK : fail_all(items, count, status);
}

static bool send_nothing(tm_pg_work *w, PGconn *pg) {
  (void)w, (void)pg;
  return true;
}

tm_status tm__pg_probe(tm_store_conn *c, tm_error *err) {
  tm_pg_work work = {"try to write", send_nothing, NULL}; /* the writer's number is raised */
  return tm__pg_write(c, &work, err);
}
