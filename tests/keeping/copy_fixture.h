/* copy_fixture.h - random stores, and whether two of them hold the same, looked at through store.h
 * alone. */
#ifndef TM_TESTS_KEEPING_COPY_FIXTURE_H
#define TM_TESTS_KEEPING_COPY_FIXTURE_H

#include "keeping/copy.h"
#include "tests/persistence/contract.h"

#define MOST_ROWS 6000

/* ---- chance ---- */

static inline uint32_t dice(uint32_t *seed) {
  *seed = *seed * 1664525U + 1013904223U;
  return *seed >> 8;
}

static inline int below(uint32_t *seed, int n) {
  return (int)(dice(seed) % (uint32_t)n);
}

static inline bool chance(uint32_t *seed, int percent) {
  return below(seed, 100) < percent;
}

/* ---- filling a store ---- */

typedef struct filler {
  fixture *fx;
  uint32_t seed;
  int64_t rows[MOST_ROWS]; /* ids of the conversation at hand */
  int count, heads_only;
  int64_t revision;
  int64_t total; /* rows in all */
} filler;

static inline void random_head(filler *f, tm_head *h) {
  static const char *const steps[] = {"ask", "it's \"x\" \xc3\xa9%;--", "", "a"};
  h->status = (tm_conversation_status)below(&f->seed, TM_CANCELLED + 1);
  h->wake_at = chance(&f->seed, 40) ? f->fx->now + below(&f->seed, 5000) : 0;
  h->ended = tm__conversation_is_over(h->status) ? f->fx->now - below(&f->seed, 5000) : 0;
  set_text(h->step, sizeof(h->step), steps[below(&f->seed, 4)]);
  if (chance(&f->seed, 20)) set_text(h->claim, sizeof(h->claim), nth(900).text);
  for (int i = 0; i < TM_RECENT_KEYS && f->count > 0 && chance(&f->seed, 60); i++)
    h->recent[i] = (tm_recent_key){
        .key = 1 + dice(&f->seed),
        .body = dice(&f->seed),
        .row = chance(&f->seed, 30) ? TM_THIS_ROW : f->rows[below(&f->seed, f->count)]};
}

static inline void random_row(filler *f, tm_row *row, char *body, size_t room) {
  *row = (tm_row){.created = f->fx->now + below(&f->seed, 1000),
                  .kind = (tm_row_kind)(1 + below(&f->seed, 3)),
                  .checkpoint = chance(&f->seed, 30)};
  if (f->count > 0) row->parent = f->rows[f->count - 1];
  if (f->count > 1 && chance(&f->seed, 25)) {
    row->kind = TM_ROW_UNDO;
    row->base = f->rows[below(&f->seed, f->count)];
  }
  size_t len = (size_t)below(&f->seed, (int)room);
  row->flags = chance(&f->seed, 40) ? 3 : 0;
  for (size_t i = 0; i < len; i++)
    body[i] = row->flags != 0 ? (char)dice(&f->seed) : "{}\" a"[i % 5];
  row->body = (tm_slice){body, len};
}

/* One commit more for conversation `n`: a row, or the head alone. */
static inline void add_commit(filler *f, int n, int room) {
  char body[4096];
  tm_row row;
  random_row(f, &row, body, (size_t)room);
  bool with_row = f->count == 0 || chance(&f->seed, 85);
  tm_commit c = commit_of(f->fx, nth(n).text, f->revision, with_row ? &row : NULL);
  set_text(c.head.tenant, sizeof(c.head.tenant), n % 3 == 0 ? "acme" : "default");
  (void)snprintf(c.head.session, sizeof(c.head.session), "s%d", n % 7);
  random_head(f, &c.head);
  for (int i = 0; !with_row && i < TM_RECENT_KEYS; i++)
    if (c.head.recent[i].row == TM_THIS_ROW) c.head.recent[i].row = f->rows[0];
  if (f->revision == 0 && n % 2 == 0) {
    c.start_key = (uint64_t)n + 1000;
    c.start_body = (uint64_t)n + 2000;
  }
  c.start_answer = with_row && f->count == 2;
  assert_ok(f->fx, commit_one(f->fx, &c));
  f->revision++;
  if (!with_row) return;
  f->rows[f->count++] = c.row_id;
  f->total++;
}

static inline void add_conversation(filler *f, int n, int commits, int room) {
  f->count = 0;
  f->revision = 0;
  for (int i = 0; i < commits; i++)
    add_commit(f, n, room);
}

static inline void add_sessions(filler *f, int count) {
  for (int i = 0; i < count; i++) {
    char id[16];
    (void)snprintf(id, sizeof(id), "s%d", i);
    tm_session s = {.tenant = i % 3 == 0 ? TM_S("acme") : TM_S("default"),
                    .id = tm__slice(id),
                    .user_id = i % 2 == 0 ? TM_S("ann") : (tm_slice){NULL, 0},
                    .metadata = i % 4 == 0 ? TM_S("{\"a\":\"\xc3\xa9\"}") : (tm_slice){NULL, 0},
                    .flags = i % 4 == 0 ? 2 : 0,
                    .created = f->fx->now - i,
                    .look_at = i % 5 == 0 ? f->fx->now + i : 0,
                    .ended = i % 6 == 0 ? f->fx->now : 0};
    assert_ok(f->fx, f->fx->backend->session_put(f->fx->writer, NULL, &s, &f->fx->err));
  }
}

static inline void add_scripts(filler *f) {
  assert_ok(f->fx, f->fx->backend->script_put(f->fx->writer, TM_S("shop"), TM_S("3f9c"),
                                              TM_S("return {}"), &f->fx->err));
  assert_ok(f->fx, f->fx->backend->script_put(f->fx->writer, TM_S("shop"), TM_S("77"),
                                              TM_S("return 1 -- \xc3\xa9"), &f->fx->err));
}

/* ---- comparing ---- */

typedef struct walked_row {
  int64_t id, parent, base, revision, created;
  tm_row_kind kind;
  bool checkpoint;
  uint32_t flags;
  uint64_t body;
} walked_row;

typedef struct walked {
  walked_row rows[MOST_ROWS];
  size_t count;
} walked;

static inline tm_status walk_row(void *ud, const tm_row *r) {
  walked *w = ud;
  assert_true(w->count < MOST_ROWS);
  w->rows[w->count++] = (walked_row){r->id,         r->parent,  r->base,
                                     r->revision,   r->created, r->kind,
                                     r->checkpoint, r->flags,   tm__digest_u64(&r->body, 1)};
  return TM_OK;
}

static inline void walk_chain(fixture *fx, const tm_head *head, bool follow_base, walked *w) {
  w->count = 0;
  if (head->tip == 0) return;
  assert_ok(fx, fx->backend->chain(fx->writer, tm__slice(head->id), head->tip, follow_base,
                                   walk_row, w, &fx->err));
}

static inline int64_t revision_of(const walked *w, int64_t id) {
  for (size_t i = 0; i < w->count; i++)
    if (w->rows[i].id == id) return w->rows[i].revision;
  return id == 0 ? 0 : -1;
}

static inline void same_rows(const walked *a, const walked *b) {
  assert_int_equal(a->count, b->count);
  for (size_t i = 0; i < a->count; i++) {
    const walked_row *x = &a->rows[i], *y = &b->rows[i];
    assert_int_equal(x->revision, y->revision);
    assert_int_equal(x->created, y->created);
    assert_int_equal(x->kind, y->kind);
    assert_int_equal(x->checkpoint, y->checkpoint);
    assert_int_equal(x->flags, y->flags);
    assert_true(x->body == y->body);
    assert_true(x->base == 0 ? y->base == 0 : revision_of(a, x->base) == revision_of(b, y->base));
    assert_int_equal(i + 1 < a->count ? a->rows[i + 1].id : 0, x->parent);
    assert_int_equal(i + 1 < b->count ? b->rows[i + 1].id : 0, y->parent);
  }
}

static inline void same_followed(const walked *a, const walked *b) {
  assert_int_equal(a->count, b->count);
  for (size_t i = 0; i < a->count; i++)
    assert_int_equal(a->rows[i].revision, b->rows[i].revision);
}

static inline void same_key(fixture *a, fixture *b, const char *id, const walked *x,
                            const walked *y) {
  uint64_t one = 0, other = 0;
  tm_start_key k, l;
  tm_status status = a->backend->key_of(a->writer, tm__slice(id), &one, &k, NULL);
  assert_int_equal(b->backend->key_of(b->writer, tm__slice(id), &other, &l, NULL), status);
  if (status != TM_OK) return;
  assert_true(one == other);
  assert_true(k.body == l.body);
  assert_string_equal(l.conversation, id);
  assert_int_equal(revision_of(x, k.row), revision_of(y, l.row));
  tm_head head = head_of(a, id);
  assert_ok(b, b->backend->start_key(b->writer, tm__slice(head.tenant), one, &k, &b->err));
  assert_string_equal(k.conversation, id);
}

static inline void same_heads(const tm_head *x, const tm_head *y, const walked *a,
                              const walked *b) {
  assert_string_equal(x->tenant, y->tenant);
  assert_string_equal(x->session, y->session);
  assert_string_equal(x->system, y->system);
  assert_string_equal(x->flow, y->flow);
  assert_string_equal(x->version, y->version);
  assert_string_equal(x->step, y->step);
  assert_string_equal(x->claim, y->claim);
  assert_int_equal(x->status, y->status);
  assert_int_equal(x->revision, y->revision);
  assert_int_equal(x->wake_at, y->wake_at);
  assert_int_equal(x->created, y->created);
  assert_int_equal(x->ended, y->ended);
  for (size_t i = 0; i < TM_RECENT_KEYS; i++) {
    assert_true(x->recent[i].key == y->recent[i].key);
    if (x->recent[i].key == 0) continue;
    assert_true(x->recent[i].body == y->recent[i].body);
    assert_int_equal(revision_of(a, x->recent[i].row), revision_of(b, y->recent[i].row));
  }
}

static inline void same_conversation(fixture *a, fixture *b, const char *id) {
  walked *x = calloc(1, sizeof(*x)), *y = calloc(1, sizeof(*y));
  if (x == NULL || y == NULL) abort();
  tm_head one = head_of(a, id), other = head_of(b, id);
  walk_chain(a, &one, true, x);
  walk_chain(b, &other, true, y);
  same_followed(x, y);
  walk_chain(a, &one, false, x);
  walk_chain(b, &other, false, y);
  same_rows(x, y);
  same_heads(&one, &other, x, y);
  same_key(a, b, id, x, y);
  free(x);
  free(y);
}

typedef struct session_text {
  char text[8192];
  size_t count;
} session_text;

static inline tm_status on_session(void *ud, const tm_session *s) {
  session_text *all = ud;
  size_t len = strlen(all->text);
  (void)snprintf(all->text + len, sizeof(all->text) - len,
                 "%.*s/%.*s:%d%.*s,%d%.*s,%u,%lld,%lld,%lld\n", (int)s->tenant.len, s->tenant.ptr,
                 (int)s->id.len, s->id.ptr, s->user_id.ptr != NULL, (int)s->user_id.len,
                 s->user_id.ptr != NULL ? s->user_id.ptr : "", s->metadata.ptr != NULL,
                 (int)s->metadata.len, s->metadata.ptr != NULL ? s->metadata.ptr : "", s->flags,
                 (long long)s->created, (long long)s->look_at, (long long)s->ended);
  all->count++;
  return TM_OK;
}

/* Per tenant: of all of them stores may list in an order of their own. */
static inline void same_sessions(fixture *a, fixture *b, size_t count) {
  static const char *const tenants[] = {"acme", "default"};
  session_text x = {.count = 0}, y = {.count = 0};
  for (int i = 0; i < 2; i++) {
    tm_session_filter f = {.tenant = tm__slice(tenants[i]), .ended = -1, .limit = 1000};
    assert_ok(a, a->backend->sessions(a->writer, &f, on_session, &x, &a->err));
    assert_ok(b, b->backend->sessions(b->writer, &f, on_session, &y, &b->err));
  }
  assert_string_equal(x.text, y.text);
  assert_int_equal(x.count, count);
}

static inline void same_scripts(fixture *b) {
  tm_buf text = {0};
  assert_ok(b, b->backend->script_get(b->writer, TM_S("shop"), TM_S("77"), &text, &b->err));
  assert_string_equal(text.ptr, "return 1 -- \xc3\xa9");
  tm__buf_clear(&text);
  assert_ok(b, b->backend->script_get(b->writer, TM_S("shop"), TM_S("3f9c"), &text, &b->err));
  assert_string_equal(text.ptr, "return {}");
  tm__buf_free(&text);
}

#endif
