/* What every backend keeps must come back to the bit: random heads, rows, sessions and notes
 * against a model; many writers; names and ids that somebody chose to hurt. The seed is printed;
 * TIDEMILL_SEED repeats a run. The same cases over all of backends.def. */
#include "contract.h"

#include <inttypes.h>
#include <pthread.h>
#include <time.h>

/* ---- chance ---- */

static uint64_t seed;

static uint64_t chance(void) { /* xorshift64* */
  static uint64_t x;
  if (x == 0) x = seed | 1;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  return x * UINT64_C(2685821657736338717);
}

static size_t below(size_t n) {
  return (size_t)(chance() % n);
}

/* Valid UTF-8 without NUL, with all that a query language could trip over; at most size-1 bytes. */
static void random_name(char *out, size_t size, size_t least) {
  static const char *const bits[] = {"a",
                                     "Z",
                                     "0",
                                     "'",
                                     "\"",
                                     "%",
                                     "_",
                                     "\\",
                                     ";",
                                     "--",
                                     "/*",
                                     "{",
                                     "}",
                                     ":",
                                     "\n",
                                     "\t",
                                     "\x01",
                                     "\x7f",
                                     "/",
                                     "..",
                                     "*",
                                     "$1",
                                     "?",
                                     "\xc3\xa9",
                                     "[]",
                                     "|",
                                     ",",
                                     "\r\n",
                                     "\xe2\x82\xac",
                                     "\xf0\x9f\x8c\x8a",
                                     " ",
                                     "`"};
  size_t want = below(8) == 0 ? size - 1 : below(20) < size - 1 ? below(20) : size - 1, len = 0;
  if (want < least) want = least;
  for (int tries = 0; len < want && tries < 1000; tries++) {
    const char *bit = bits[below(sizeof(bits) / sizeof(bits[0]))];
    size_t n = strlen(bit);
    if (len + n > want) continue;
    memcpy(out + len, bit, n);
    len += n;
  }
  out[len] = '\0';
}

static int64_t random_time(void) {
  switch (below(5)) {
  case 0: return 0;
  case 1: return INT64_MAX - (int64_t)below(3);
  case 2: return 1 + (int64_t)below(3);
  case 3: return (int64_t)(chance() >> 12);
  default: return 1763802000000 + (int64_t)below(100000);
  }
}

/* Any bytes where the flags allow them, else UTF-8. */
static tm_slice random_body(char *out, size_t size, uint32_t flags) {
  size_t len = below(4) == 0 ? below(size) : below(200);
  for (size_t i = 0; i < len; i++)
    out[i] = flags != 0 ? (char)chance() : (char)('!' + below(90));
  return (tm_slice){out, len};
}

static uint32_t random_flags(void) {
  return below(2) == 0 ? 0 : (uint32_t)chance() | 1;
}

/* ---- heads and rows against a model ---- */

enum { CONVERSATIONS = 8, ROWS = 24, BODY = 9000 };

typedef struct model_row {
  tm_row row;
  char body[BODY];
} model_row;

typedef struct model {
  tm_head head;
  model_row rows[ROWS];
  int count;
} model;

static void random_head(tm_head *h, bool first) {
  if (first) {
    random_name(h->tenant, sizeof(h->tenant), 1);
    random_name(h->session, sizeof(h->session), 0);
    random_name(h->system, sizeof(h->system), 0);
    h->created = random_time();
  }
  random_name(h->flow, sizeof(h->flow), 0);
  random_name(h->version, sizeof(h->version), 0);
  random_name(h->step, sizeof(h->step), 0);
  random_name(h->claim, sizeof(h->claim), 0);
  h->status = (tm_conversation_status)below(TM_CANCELLED + 1);
  h->wake_at = random_time();
  h->ended = random_time();
  for (size_t i = 0; i < TM_RECENT_KEYS; i++) {
    bool used = below(3) != 0;
    h->recent[i] = (tm_recent_key){used ? chance() | 1 : 0, used ? chance() : 0,
                                   used ? (int64_t)(chance() >> 1) : 0};
  }
}

static void random_row(model *m, model_row *r) {
  uint32_t flags = random_flags();
  const tm_row *any = m->count > 0 ? &m->rows[below((size_t)m->count)].row : NULL;
  r->row = (tm_row){.parent = m->head.tip,
                    .base = any != NULL && below(3) == 0 ? any->id : 0,
                    .kind = (tm_row_kind)(TM_ROW_BEGIN + below(TM_ROW_MIGRATE)),
                    .created = random_time(),
                    .checkpoint = below(2) == 0,
                    .flags = flags};
  r->row.body = random_body(r->body, sizeof(r->body), flags);
}

/* One more commit of the model, with a row or without. */
static void step(fixture *fx, model *m) {
  tm_commit c = {.head = m->head, .expect_revision = m->head.revision};
  bool row = m->count < ROWS && below(4) != 0;
  model_row *r = &m->rows[m->count < ROWS ? m->count : 0];
  random_head(&c.head, m->head.revision == 0);
  c.head.revision = m->head.revision + 1;
  if (below(5) == 0) {
    c.replay = true;
    c.head.revision += (int64_t)below(1000);
  }
  size_t this_row = below(TM_RECENT_KEYS);
  if (row) {
    random_row(m, r);
    c.row = &r->row;
    if (c.head.recent[this_row].key != 0) c.head.recent[this_row].row = TM_THIS_ROW;
  }
  assert_ok(fx, commit_one(fx, &c));
  for (size_t i = 0; i < TM_RECENT_KEYS; i++)
    if (c.head.recent[i].row == TM_THIS_ROW) c.head.recent[i].row = c.row_id;
  int64_t tip = m->head.tip;
  m->head = c.head;
  m->head.tip = row ? c.row_id : tip;
  assert_true(!row || c.row_id > tip);
  if (!row) return;
  r->row.id = c.row_id;
  r->row.revision = c.head.revision;
  memcpy(r->row.conversation, m->head.id, TM_ID_SIZE);
  m->count++;
}

static void heads_must_equal(const tm_head *have, const tm_head *want) {
  assert_string_equal(have->id, want->id);
  assert_string_equal(have->tenant, want->tenant);
  assert_string_equal(have->session, want->session);
  assert_string_equal(have->system, want->system);
  assert_string_equal(have->flow, want->flow);
  assert_string_equal(have->version, want->version);
  assert_string_equal(have->step, want->step);
  assert_string_equal(have->claim, want->claim);
  assert_int_equal(have->status, want->status);
  assert_true(have->revision == want->revision && have->tip == want->tip);
  assert_true(have->wake_at == want->wake_at && have->ended == want->ended);
  assert_true(have->created == want->created);
  assert_memory_equal(have->recent, want->recent, sizeof(have->recent));
}

typedef struct compare {
  const model *model;
  int at;
} compare;

static tm_status compare_row(void *ud, const tm_row *have) {
  compare *c = ud;
  assert_true(c->at >= 0);
  const tm_row *want = &c->model->rows[c->at--].row;
  assert_true(have->id == want->id && have->parent == want->parent && have->base == want->base);
  assert_string_equal(have->conversation, want->conversation);
  assert_true(have->revision == want->revision && have->created == want->created);
  assert_int_equal(have->kind, want->kind);
  assert_int_equal(have->checkpoint, want->checkpoint);
  assert_true(have->flags == want->flags);
  assert_int_equal(have->body.len, want->body.len);
  if (want->body.len > 0) assert_memory_equal(have->body.ptr, want->body.ptr, want->body.len);
  return TM_OK;
}

static void must_be(fixture *fx, const model *m) {
  compare c = {m, m->count - 1};
  tm_head head = head_of(fx, m->head.id);
  heads_must_equal(&head, &m->head);
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(m->head.id), m->head.tip, false,
                                   compare_row, &c, &fx->err));
  assert_int_equal(c.at, -1);
}

/* Some rows get other bodies. */
static void reseal(fixture *fx, model *m) {
  tm_row rows[ROWS];
  size_t count = 0;
  for (int i = 0; i < m->count; i++) {
    model_row *r = &m->rows[i];
    if (below(3) != 0) continue;
    r->row.flags = random_flags();
    r->row.body = random_body(r->body, sizeof(r->body), r->row.flags);
    rows[count++] = r->row;
  }
  assert_ok(fx, fx->backend->rewrite(fx->writer, rows, count, &fx->err));
}

static void records_come_back_to_the_bit(void **state) {
  fixture *fx = *state;
  model *models = calloc(CONVERSATIONS, sizeof(*models));
  assert_non_null(models);
  for (int i = 0; i < CONVERSATIONS; i++)
    memcpy(models[i].head.id, nth(i).text, TM_ID_SIZE);
  for (int i = 0; i < 250; i++)
    step(fx, &models[below(CONVERSATIONS)]);
  for (int i = 0; i < CONVERSATIONS; i++)
    if (models[i].head.revision == 0) step(fx, &models[i]);
  for (int i = 0; i < CONVERSATIONS; i++)
    must_be(fx, &models[i]);
  for (int i = 0; i < CONVERSATIONS; i++)
    reseal(fx, &models[i]);
  if (fx->backend->durable) {
    fixture_close(fx);
    fixture_open(fx);
  }
  for (int i = 0; i < CONVERSATIONS; i++)
    must_be(fx, &models[i]);
  free(models);
}

/* ---- sessions and notes against a model ---- */

enum { SESSIONS = 40, TEXT = 600 };

typedef struct model_session {
  char tenant[65], id[129], user[TEXT], metadata[TEXT];
  tm_session s;
} model_session;

static tm_status compare_session(void *ud, const tm_session *have) {
  const tm_session *want = &((const model_session *)ud)->s;
  assert_true(tm__slice_eq(have->tenant, want->tenant) && tm__slice_eq(have->id, want->id));
  assert_true(have->flags == want->flags && have->created == want->created);
  assert_true(have->look_at == want->look_at && have->ended == want->ended);
  assert_true((have->user_id.ptr == NULL) == (want->user_id.ptr == NULL));
  assert_true((have->metadata.ptr == NULL) == (want->metadata.ptr == NULL));
  assert_true(tm__slice_eq(have->user_id, want->user_id));
  assert_true(tm__slice_eq(have->metadata, want->metadata));
  return TM_OK;
}

static void random_session(model_session *m) {
  uint32_t flags = random_flags();
  m->s.flags = flags;
  m->s.user_id = below(4) == 0 ? (tm_slice){NULL, 0} : random_body(m->user, TEXT, flags);
  m->s.metadata = below(4) == 0 ? (tm_slice){NULL, 0} : random_body(m->metadata, TEXT, flags);
  m->s.created = random_time();
  m->s.look_at = random_time();
  m->s.ended = random_time();
}

static tm_status count_session(void *ud, const tm_session *s) {
  (void)s;
  ++*(int *)ud;
  return TM_OK;
}

static void sessions_come_back_to_the_bit(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  model_session *all = calloc(SESSIONS, sizeof(*all));
  assert_non_null(all);
  for (int i = 0; i < SESSIONS; i++) {
    model_session *m = &all[i];
    random_name(m->tenant, sizeof(m->tenant), 1);
    random_name(m->id, sizeof(m->id) - 1, 0);
    size_t len = strlen(m->id);
    m->id[len] = (char)('A' + i); /* no two are the same */
    m->id[len + 1] = '\0';
    m->s.tenant = tm__slice(m->tenant);
    m->s.id = tm__slice(m->id);
    for (size_t times = 1 + below(3); times > 0; times--) {
      random_session(m);
      assert_ok(fx, b->session_put(fx->writer, NULL, &m->s, &fx->err));
    }
  }
  for (int i = 0; i < SESSIONS; i++)
    assert_ok(fx, b->session(fx->reader, all[i].s.tenant, all[i].s.id, compare_session, &all[i],
                             &fx->err));
  int found[3] = {0}, open = 0;
  for (int i = 0; i < SESSIONS; i++)
    open += all[i].s.ended == 0;
  for (int ended = -1; ended <= 1; ended++) {
    const tm_session_filter f = {.ended = ended, .limit = 1000};
    assert_ok(fx, b->sessions(fx->reader, &f, count_session, &found[ended + 1], &fx->err));
  }
  assert_int_equal(found[0], SESSIONS);
  assert_int_equal(found[1], open);
  assert_int_equal(found[2], SESSIONS - open);
  free(all);
}

/* ---- many writers ---- */

enum { WRITERS = 8, SHARED = 4, TURNS = 40 };

typedef struct writer {
  fixture *fx;
  int number, won[SHARED];
  bool connected;
} writer;

/* Turns on conversations that all of them want, each a compare-and-set on what it has read. */
static void *write_many(void *ud) {
  writer *w = ud;
  tm_store_conn *conn = NULL;
  const tm_store_backend *b = w->fx->backend;
  tm_error err;
  if (b->connect(&conn, w->fx->store, TM_STORE_WRITER, &err) != TM_OK) return NULL;
  w->connected = true;
  for (int i = 0; i < TURNS; i++) {
    int n = (i + w->number) % SHARED;
    tm_head head;
    char body[32];
    if (b->head(conn, tm__slice(nth(n).text), &head, &err) != TM_OK) continue;
    (void)snprintf(body, sizeof(body), "%d.%d", w->number, i);
    tm_row row = {.parent = head.tip, .kind = TM_ROW_TURN, .body = tm__slice(body)};
    tm_commit c = {.head = head, .expect_revision = head.revision, .row = &row};
    tm_commit *items[] = {&c};
    c.head.revision++;
    if (b->commit(conn, items, 1, &err) == TM_OK && c.status == TM_OK) w->won[n]++;
  }
  b->disconnect(conn);
  return NULL;
}

static tm_status follow_parent(void *ud, const tm_row *row) {
  int64_t *revision = ud;
  assert_true(row->revision == *revision);
  --*revision;
  return TM_OK;
}

static void writers_never_overwrite_each_other(void **state) {
  fixture *fx = *state;
  writer writers[WRITERS];
  pthread_t threads[WRITERS];
  for (int n = 0; n < SHARED; n++)
    (void)turn(fx, nth(n).text, 0, 0, "first");
  for (int i = 0; i < WRITERS; i++) {
    writers[i] = (writer){.fx = fx, .number = i};
    assert_int_equal(pthread_create(&threads[i], NULL, write_many, &writers[i]), 0);
  }
  for (int i = 0; i < WRITERS; i++)
    assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int n = 0; n < SHARED; n++) {
    int64_t won = 1;
    for (int i = 0; i < WRITERS; i++) {
      assert_true(writers[i].connected);
      won += writers[i].won[n];
    }
    tm_head head = head_of(fx, nth(n).text);
    assert_int_equal(head.revision, won); /* each that was told so, and nobody else */
    assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(n).text), head.tip, false,
                                     follow_parent, &won, &fx->err));
    assert_int_equal(won, 0); /* an unbroken line of parents */
  }
}

/* ---- names that somebody chose ---- */

static const char *const hostile[] = {
    "'; DROP TABLE heads; --",
    "\" OR \"\"=\"",
    "%",
    "_",
    "\\",
    "\\'",
    "{tag}",
    "a:b:c",
    "../../etc/passwd",
    "..",
    "/",
    "*",
    "[a-z]",
    "$1",
    "?1",
    "\n\r\t\x01\x7f",
    "\xef\xbb\xbf\xe2\x80\xae",
    "\xf0\x9f\x8c\x8a",
    "null",
    "NULL",
    "0",
    "-1",
    "default",
    "DEFAULT",
    " default",
    "default ",
    "d\303\251fault",
    "a",
    "A",
    "aa",
    "a\x01",
};
enum { HOSTILE = sizeof(hostile) / sizeof(hostile[0]) };

/* Each hostile tenant sees its own and nothing else, in lists, keys and sessions. */
static void hostile_names_stay_names(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  for (int i = 0; i < HOSTILE; i++) {
    const tm_session session = {.user_id = tm__slice(hostile[i]), .created = 1 + i};
    tm_row row = row_of(fx, 0, hostile[i]);
    tm_commit c = commit_of(fx, nth(i).text, 0, &row);
    set_text(c.head.tenant, sizeof(c.head.tenant), hostile[i]);
    set_text(c.head.session, sizeof(c.head.session), hostile[(i + 7) % HOSTILE]);
    set_text(c.head.system, sizeof(c.head.system), hostile[(i + 3) % HOSTILE]);
    set_text(c.head.flow, sizeof(c.head.flow), hostile[(i + 5) % HOSTILE]);
    c.start_key = 7;
    c.session = &session;
    assert_ok(fx, commit_one(fx, &c));
  }
  for (int i = 0; i < HOSTILE; i++) {
    seen s = {0}, none = {0};
    tm_start_key key;
    int sessions = 0;
    tm_list_filter f = {.tenant = tm__slice(hostile[i]),
                        .session = tm__slice(hostile[(i + 7) % HOSTILE]),
                        .system = tm__slice(hostile[(i + 3) % HOSTILE]),
                        .flow = tm__slice(hostile[(i + 5) % HOSTILE]),
                        .status = -1,
                        .limit = 64};
    assert_ok(fx, b->list(fx->reader, &f, see_head, &s, &fx->err));
    assert_int_equal(s.count, 1);
    assert_string_equal(s.ids[0], nth(i).text);
    f.system = tm__slice(hostile[i]);
    assert_ok(fx, b->list(fx->reader, &f, see_head, &none, &fx->err));
    assert_int_equal(none.count, 0);
    assert_ok(fx, b->start_key(fx->reader, tm__slice(hostile[i]), 7, &key, &fx->err));
    assert_string_equal(key.conversation, nth(i).text);
    const tm_session_filter sf = {.tenant = tm__slice(hostile[i]), .ended = -1, .limit = 64};
    assert_ok(fx, b->sessions(fx->reader, &sf, count_session, &sessions, &fx->err));
    assert_int_equal(sessions, 1);
  }
}

/* Ids of conversations that are none: each is itself, in the order of its bytes. */
static void hostile_ids_sort_by_bytes(void **state) {
  fixture *fx = *state;
  static const char *const sorted[] = {
      "\xf0\x9f\x8c\x8a", "\xc3\xa9", "~", "z",   "a%", "a", "_", "Z", "9", "10",
      "1' OR '1'='1",     "-",        "%", "\"x", "!"};
  enum { COUNT = sizeof(sorted) / sizeof(sorted[0]) };
  for (size_t i = 0; i < COUNT; i++) {
    const char *id = sorted[(i * 4 + 1) % COUNT];
    (void)turn(fx, id, 0, 0, id);
  }
  seen s = {0}, page = {0};
  tm_list_filter f = {.tenant = TM_S("default"), .status = -1, .limit = 64};
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &s, &fx->err));
  assert_int_equal(s.count, COUNT);
  for (size_t i = 0; i < COUNT; i++)
    assert_string_equal(s.ids[i], sorted[i]);
  set_text(f.before, sizeof(f.before), "a");
  f.limit = 2;
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &page, &fx->err));
  assert_int_equal(page.count, 2);
  assert_string_equal(page.ids[0], "_");
  for (size_t i = 0; i < COUNT; i++) {
    seen row = {0};
    tm_head head = head_of(fx, sorted[i]);
    assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(sorted[i]), head.tip, false, see_row,
                                     &row, &fx->err));
    assert_string_equal(row.body, sorted[i]);
    assert_int_equal(fx->backend->chain(fx->reader, tm__slice(sorted[(i + 1) % COUNT]),
                                        head.tip + 1000, false, see_row, &row, NULL),
                     TM_ENOTFOUND);
  }
}

static void no_row_of_another(void **state) {
  fixture *fx = *state;
  int64_t mine = turn(fx, nth(1).text, 0, 0, "mine");
  int64_t theirs = 0;
  for (int i = 0; i < 5; i++)
    theirs = turn(fx, nth(2).text, i, theirs, "theirs");
  seen s = {0};
  for (int64_t id = -1; id < mine + 20; id++) {
    if (id == 0) continue;
    s = (seen){0};
    tm_status status =
        fx->backend->chain(fx->reader, tm__slice(nth(1).text), id, false, see_row, &s, NULL);
    if (id == mine) {
      assert_int_equal(status, TM_OK);
      assert_string_equal(s.body, "mine");
    } else {
      assert_int_equal(status, TM_ENOTFOUND);
    }
  }
}

static const struct CMUnitTest cases[] = {
    CASE(records_come_back_to_the_bit),       CASE(sessions_come_back_to_the_bit),
    CASE(writers_never_overwrite_each_other), CASE(hostile_names_stay_names),
    CASE(hostile_ids_sort_by_bytes),          CASE(no_row_of_another),
};

int main(void) {
  int failed = 0;
  const char *given = getenv("TIDEMILL_SEED");
  seed = given != NULL ? strtoull(given, NULL, 10)
                       : (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid();
  (void)printf("TIDEMILL_SEED=%" PRIu64 "\n", seed);
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
