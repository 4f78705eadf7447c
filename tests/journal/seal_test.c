/* What conversations store, sealed: every row of every kind, also those that no flow writes; what
 * is read back when somebody was at the store; and what a destroyed key takes along. */
#include "fixture.h"
#include "tests/provoke.h"

#define KEY_B  "Yl7cVH1m9d2+R/3qAvQyW3iX1Jm2rC6y8q5Gm0sTn0M="
#define MARKER "marzipan"

/* ---- the rows as they are stored, and changing them ---- */

enum { ROWS = 64 };

typedef struct stored_rows {
  tm_store_job job;
  uv_sem_t done;
  char id[TM_ID_SIZE];
  tm_head head;
  tm_row rows[ROWS]; /* newest first; their bodies are owned */
  size_t count;
  void (*change)(struct stored_rows *s, int64_t by);
  int64_t by;
} stored_rows;

static tm_status keep_row(void *ud, const tm_row *row) {
  stored_rows *s = ud;
  assert_true(s->count < ROWS);
  tm_row *kept = &s->rows[s->count++];
  *kept = *row;
  kept->body.ptr = tm__slice_dup(row->body);
  assert_non_null(kept->body.ptr);
  return TM_OK;
}

static tm_status rows_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  stored_rows *s = (stored_rows *)(void *)job;
  tm_slice id = tm__slice(s->id);
  tm_status status = a->backend->head(a->conn, id, &s->head, err);
  if (status == TM_OK)
    status = a->backend->chain(a->conn, id, s->head.tip, false, keep_row, s, err);
  if (status != TM_OK || s->change == NULL) return status;
  s->change(s, s->by);
  return a->backend->rewrite(a->conn, s->rows, s->count, err);
}

static void rows_done(tm_message *m) {
  uv_sem_post(&((stored_rows *)(void *)m)->done);
}

static stored_rows rows_of(fixture *fx, const char *id, void (*change)(stored_rows *, int64_t),
                           int64_t by) {
  stored_rows s = {.job = {.write = true, .work = rows_work, .message.run = rows_done},
                   .change = change,
                   .by = by};
  memcpy(s.id, id, sizeof(s.id));
  assert_int_equal(uv_sem_init(&s.done, 0), 0);
  tm__storage_run(fx->storage, &s.job);
  uv_sem_wait(&s.done);
  uv_sem_destroy(&s.done);
  assert_int_equal(s.job.status, TM_OK);
  return s;
}

static void drop(tm_slice *body) {
  union {
    const char *in;
    char *out;
  } text = {body->ptr};
  free(text.out);
}

static void rows_free(stored_rows *s) {
  for (size_t i = 0; i < s->count; i++)
    drop(&s->rows[i].body);
}

/* Are all of them stored with these flags, and without what the user typed? */
static void check_rows(fixture *fx, const char *id, uint32_t flags, size_t count) {
  stored_rows s = rows_of(fx, id, NULL, 0);
  assert_int_equal(s.count, count);
  for (size_t i = 0; i < s.count; i++) {
    tm_slice body = s.rows[i].body;
    assert_int_equal(s.rows[i].flags & TM_BODY_SEALED, flags & TM_BODY_SEALED);
    if (body.len > 200) assert_int_equal(s.rows[i].flags, flags);
    if (flags == 0) continue;
    assert_null(memmem(body.ptr, body.len, MARKER, strlen(MARKER)));
    assert_null(memmem(body.ptr, body.len, "waiting_input", 13));
  }
  rows_free(&s);
}

static void change_rows(fixture *fx, const char *id, void (*change)(stored_rows *, int64_t),
                        int64_t by) {
  stored_rows s = rows_of(fx, id, change, by);
  rows_free(&s);
}

/* ---- writing ---- */

static void open_sealed(fixture *fx, const char *backend, bool everything) {
  fixture_init(fx, backend);
  fx->coding.seal = everything;
  fx->seal = !everything;
  fx->compress = true;
  storage_start(fx);
  host_start(fx, 0);
}

static void test_every_row(void **unused) {
  (void)unused;
  for (int everything = 0; everything < 2; everything++) {
    fixture fx;
    char id[TM_ID_SIZE];
    open_sealed(&fx, "sqlite", everything == 1);
    host *h = &fx.hosts[0];
    assert_answer(start(h, id, MARKER));
    assert_answer(say(h, id, "call2"));
    assert_answer(say(h, id, MARKER));
    assert_answer(undo(h, id, 1, 0, true));
    check_rows(&fx, id, TM_BODY_ZSTD | TM_BODY_SEALED, 7);
    fixture_restart(&fx); /* nothing is hot any more */
    fx.seal = fx.coding.seal = false;
    h = &fx.hosts[0];
    answer *a = undo(h, id, 1, 0, true);
    assert_answer(a);
    assert_answer(say(h, id, MARKER)); /* once sealed, for ever */
    check_rows(&fx, id, TM_BODY_ZSTD | TM_BODY_SEALED, 9);
    a = read_it(&fx, id, TM_READ_MESSAGES, "", 0);
    assert_answer(a);
    assert_holds(a, MARKER);
    assert_false(fx.last_unsealed);
    fixture_close(&fx);
  }
}

static void test_plain_stays_plain(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  fixture_open(&fx, "sqlite");
  assert_answer(start(&fx.hosts[0], id, MARKER));
  check_rows(&fx, id, 0, 1);
  fx.compress = true;
  assert_answer(say(&fx.hosts[0], id, "more"));
  stored_rows s = rows_of(&fx, id, NULL, 0);
  assert_int_equal(s.rows[0].flags, TM_BODY_ZSTD);
  assert_int_equal(s.rows[1].flags, 0);
  rows_free(&s);
  fixture_restart(&fx);
  assert_answer(say(&fx.hosts[0], id, "again"));
  assert_true(fx.last_unsealed); /* the executor may mind */
  fixture_close(&fx);
}

/* ---- somebody was at the store ---- */

static void alter_newest(stored_rows *s, int64_t by) {
  tm_slice *body = &s->rows[0].body;
  char *other = tm__slice_dup(*body);
  other[by < 0 ? (int64_t)body->len + by : by] ^= 0x10;
  drop(body);
  body->ptr = other;
}

static void swap_newest(stored_rows *s, int64_t by) {
  tm_slice body = s->rows[0].body;
  uint32_t flags = s->rows[0].flags;
  s->rows[0].body = s->rows[by].body;
  s->rows[0].flags = s->rows[by].flags;
  s->rows[by].body = body;
  s->rows[by].flags = flags;
}

#define FORGED                                                                                     \
  "{\"runtime\":{},\"state\":{\"count\":99},\"status\":\"waiting_input\",\"step\":\"ask\"}"

static void plain_newest(stored_rows *s, int64_t by) {
  (void)by;
  drop(&s->rows[0].body);
  s->rows[0].flags = 0;
  s->rows[0].body = (tm_slice){tm__slice_dup(TM_S(FORGED)), sizeof(FORGED) - 1};
}

typedef struct tampering {
  void (*change)(stored_rows *s, int64_t by);
  int64_t by;
  const char *code;
} tampering;

static void test_tampering(void **unused) {
  (void)unused;
  static const tampering all[] = {
      {alter_newest, 0, "journal.newer"},  {alter_newest, 3, "seal.key_unknown"},
      {alter_newest, 20, "seal.forged"},   {alter_newest, 60, "seal.forged"},
      {alter_newest, -1, "seal.forged"},   {swap_newest, 1, "seal.forged"},
      {plain_newest, 0, "seal.plaintext"},
  };
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    fixture fx;
    char id[TM_ID_SIZE], other[TM_ID_SIZE];
    open_sealed(&fx, fixture_backends[i % FIXTURE_BACKENDS].scheme, true);
    assert_answer(start(&fx.hosts[0], id, MARKER));
    assert_answer(say(&fx.hosts[0], id, "two"));
    assert_answer(start(&fx.hosts[0], other, "hello"));
    change_rows(&fx, id, all[i].change, all[i].by);
    answer *a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
    assert_refused(a, TM_ECORRUPT, all[i].code);
    assert_non_null(strstr(a->error.message, "revision 2 of conversation"));
    assert_string_equal(a->error.conversation_id, id);
    assert_refused(read_it(&fx, id, TM_READ_MESSAGES, "", 0), TM_ECORRUPT, all[i].code);
    assert_refused(read_it(&fx, id, TM_READ_STEPS, "", 0), TM_ECORRUPT, all[i].code);
    host_stop(&fx.hosts[0]);
    host_start(&fx, 0); /* without hot copies */
    assert_refused(say(&fx.hosts[0], id, "three"), TM_ECORRUPT, all[i].code);
    assert_refused(undo(&fx.hosts[0], id, 1, 0, false), TM_ECORRUPT, all[i].code);
    assert_true(tm__storage_healthy(fx.storage)); /* one record, not the store */
    assert_answer(say(&fx.hosts[0], other, "two"));
    fixture_close(&fx);
  }
}

/* Flows that seal are known to the executor only; a conversation's own rows tell as well. */
static void test_plaintext_among_sealed(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  open_sealed(&fx, "sqlite", false);
  assert_answer(start(&fx.hosts[0], id, MARKER));
  assert_answer(say(&fx.hosts[0], id, "two"));
  change_rows(&fx, id, plain_newest, 0);
  fixture_restart(&fx);
  answer *a = read_it(&fx, id, TM_READ_MESSAGES, "", 0);
  assert_refused(a, TM_ECORRUPT, "seal.plaintext");
  assert_non_null(strstr(a->error.message, "revision 2 of"));
  assert_answer(say(&fx.hosts[0], id, "three")); /* one row was read, with a whole state */
  assert_true(fx.last_unsealed);
  fx.coding.accept_plaintext = true;
  fixture_restart(&fx);
  assert_answer(say(&fx.hosts[0], id, "four"));
  assert_false(fx.last_unsealed);
  assert_answer(read_it(&fx, id, TM_READ_MESSAGES, "", 0));
  fixture_close(&fx);
}

static void plain_at(stored_rows *s, int64_t by) {
  drop(&s->rows[by].body);
  s->rows[by].flags = 0;
  s->rows[by].body = (tm_slice){tm__slice_dup(TM_S(FORGED)), sizeof(FORGED) - 1};
}

static answer *fork_of(host *h, const char *id) {
  char fresh[TM_ID_SIZE];
  tm__uuid7(fresh, fixture_now(h->fx));
  tm_request *r = request_new(h->fx->tenant, TM_REQUEST_FORK, fresh);
  (void)tm__copy(r->origin, sizeof(r->origin), tm__slice(id));
  return submit(h, r);
}

/* What is gone back to is written anew, and sealed: it must not come from a row that anybody could
 * have written. */
static void test_no_way_back_to_plaintext(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  open_sealed(&fx, "sqlite", false);
  assert_answer(start(&fx.hosts[0], id, MARKER));
  assert_answer(say(&fx.hosts[0], id, "two"));
  assert_answer(say(&fx.hosts[0], id, "three"));
  change_rows(&fx, id, plain_at, 1);
  fixture_restart(&fx);
  answer *a = undo(&fx.hosts[0], id, 1, 0, false);
  assert_refused(a, TM_ECORRUPT, "seal.plaintext");
  assert_non_null(strstr(a->error.message, "revision 2 of"));
  a = fork_of(&fx.hosts[0], id);
  assert_refused(a, TM_ECORRUPT, "seal.plaintext");
  assert_non_null(strstr(a->error.message, "revision 2 of"));
  fx.coding.accept_plaintext = true;
  fixture_restart(&fx);
  assert_answer(fork_of(&fx.hosts[0], id));
  assert_answer(undo(&fx.hosts[0], id, 1, 0, false));
  fixture_close(&fx);
}

/* ---- events ---- */

typedef struct events_job {
  tm_store_job job;
  uv_sem_t done;
  int64_t now;
  tm_outgoing first; /* as it was given; its body is not kept */
  size_t count, readable;
} events_job;

static tm_status on_event(void *ud, const tm_outgoing *event) {
  events_job *e = ud;
  if (e->count++ == 0) e->first = *event;
  e->readable += event->body.ptr != NULL;
  return TM_OK;
}

/* Who can write the store puts another body there, or one of his own. */
static tm_status forge_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  events_job *e = (events_job *)(void *)job;
  const tm_outgoing_filter f = {.dead = -1, .limit = 9};
  tm_status status = a->backend->outbox_list(a->conn, &f, on_event, e, err);
  e->first.index = 0;
  e->first.flags = 0;
  e->first.body = TM_S("{\"event\":\"forged\"}");
  return status == TM_OK ? a->backend->outbox_rewrite(a->conn, &e->first, err) : status;
}

static tm_status take_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  events_job *e = (events_job *)(void *)job;
  return tm__access_take_events(a, false, e->now, e->now + 1, 9, on_event, e, err);
}

static void events_done(tm_message *m) {
  uv_sem_post(&((events_job *)(void *)m)->done);
}

static events_job with_events(fixture *fx, tm_status (*work)(tm_store_job *,
                                                             const tm_store_access *, tm_error *)) {
  events_job e = {.job = {.write = true, .work = work, .message.run = events_done},
                  .now = fixture_now(fx)};
  assert_int_equal(uv_sem_init(&e.done, 0), 0);
  tm__storage_run(fx->storage, &e.job);
  uv_sem_wait(&e.done);
  uv_sem_destroy(&e.done);
  assert_int_equal(e.job.status, TM_OK);
  return e;
}

static void test_plain_events_among_sealed(void **unused) {
  (void)unused;
  for (size_t i = 0; i < FIXTURE_BACKENDS; i++) {
    fixture fx;
    char id[TM_ID_SIZE];
    open_sealed(&fx, fixture_backends[i].scheme, false);
    assert_answer(start(&fx.hosts[0], id, "emit"));
    assert_int_equal(with_events(&fx, forge_work).count, 2);
    turn_clock(&fx, 10);
    events_job e = with_events(&fx, take_work);
    assert_int_equal(e.count, 1);
    assert_int_equal(e.readable, 0);
    assert_non_null(strstr(e.first.note, "is not sealed"));
    assert_non_null(strstr(e.first.note, id));
    fx.coding.accept_plaintext = true;
    fixture_restart(&fx);
    turn_clock(&fx, 10);
    bool kept = strcmp(fixture_backends[i].scheme, "memory") != 0;
    assert_int_equal(with_events(&fx, take_work).readable, kept);
    fixture_close(&fx);
  }
}

/* A conversation that is not sealed tells what it has to. */
static void test_plain_events(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  fixture_init(&fx, "sqlite");
  storage_start(&fx);
  host_start(&fx, 0);
  assert_answer(start(&fx.hosts[0], id, "emit"));
  turn_clock(&fx, 10);
  assert_int_equal(with_events(&fx, take_work).readable, 1);
  fixture_close(&fx);
}

/* ---- keys ---- */

static void test_another_key(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  static const char *const previous[] = {FIXTURE_KEY};
  open_sealed(&fx, "sqlite", true);
  assert_answer(start(&fx.hosts[0], id, MARKER));
  fx.keys.current = KEY_B;
  fixture_restart(&fx);
  answer *a = read_it(&fx, id, TM_READ_CONVERSATION, "", 0);
  assert_refused(a, TM_ECORRUPT, "seal.key_unknown");
  assert_non_null(strstr(a->error.message, "previous_encryption_keys"));
  fx.keys.previous = previous;
  fx.keys.previous_count = 1;
  fixture_restart(&fx);
  assert_answer(say(&fx.hosts[0], id, "two"));
  a = read_it(&fx, id, TM_READ_MESSAGES, "", 0); /* rows of both keys */
  assert_answer(a);
  assert_holds(a, MARKER);
  fx.keys.current = "";
  fx.keys.previous_count = 0;
  fixture_restart(&fx); /* none at all */
  assert_refused(read_it(&fx, id, TM_READ_CONVERSATION, "", 0), TM_ECORRUPT, "seal.key_unknown");
  assert_refused(start(&fx.hosts[0], id, "new"), TM_EUNAVAILABLE, "seal.no_key");
  assert_true(tm__storage_healthy(fx.storage));
  fixture_close(&fx);
}

static void put_key(const fixture *fx, const char *tenant, const char *key) {
  char path[200];
  (void)snprintf(path, sizeof(path), "%s/%s.key", fx->dir, tenant);
  if (key == NULL) {
    assert_int_equal(unlink(path), 0);
    (void)atomic_fetch_add(&provoke.hours, 1); /* it is noticed a second later */
    return;
  }
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_true(fputs(key, f) >= 0);
  assert_int_equal(fclose(f), 0);
}

static void test_the_key_of_a_tenant(void **unused) {
  (void)unused;
  fixture fx;
  char id[TM_ID_SIZE];
  fixture_init(&fx, "sqlite");
  fx.coding.seal = true;
  fx.keys = (tm_keyring_options){.tenants = fx.dir};
  storage_start(&fx);
  host_start(&fx, 0);
  answer *a = start(&fx.hosts[0], id, MARKER);
  assert_refused(a, TM_EUNAVAILABLE, "seal.key_missing");
  assert_non_null(strstr(a->error.message, "/t1.key"));
  put_key(&fx, "t1", FIXTURE_KEY);
  assert_answer(start(&fx.hosts[0], id, MARKER));
  assert_answer(read_it(&fx, id, TM_READ_CONVERSATION, "", 0));
  put_key(&fx, "t1", NULL); /* destroyed */
  assert_refused(read_it(&fx, id, TM_READ_CONVERSATION, "", 0), TM_EUNAVAILABLE,
                 "seal.key_missing");
  assert_refused(say(&fx.hosts[0], id, "two"), TM_EUNAVAILABLE, "seal.key_missing");
  assert_true(tm__storage_healthy(fx.storage));
  put_key(&fx, "t1", KEY_B); /* another one opens nothing */
  assert_refused(read_it(&fx, id, TM_READ_CONVERSATION, "", 0), TM_ECORRUPT, "seal.key_unknown");
  assert_answer(start(&fx.hosts[0], id, "new"));
  fixture_close(&fx);
}

/* ---- deadlines of a tenant without a key ---- */

#define KEYLESS 270 /* more than the scheduler takes at once */

static int misses; /* atomic: lines that say that a deadline could not be met */

static void on_miss(void *ud, const char *line, size_t size) {
  static const char words[] = "a deadline could not be met";
  (void)ud;
  if (memmem(line, size, words, sizeof(words) - 1) != NULL)
    (void)__atomic_add_fetch(&misses, 1, __ATOMIC_SEQ_CST);
}

static void open_with_keys(fixture *fx, const char *backend, bool isolated) {
  fixture_init(fx, backend);
  fx->isolated = isolated;
  fx->coding.seal = true;
  fx->keys = (tm_keyring_options){.tenants = fx->dir};
  fx->log.sink = on_miss;
  put_key(fx, "t1", FIXTURE_KEY);
  put_key(fx, "t2", KEY_B);
  storage_start(fx);
  host_start(fx, 0);
}

static bool expires(fixture *fx, const char *tenant, const char *id) {
  fx->tenant = tenant;
  for (int i = 0; i < 2000; i++) {
    if (stored_head(fx, id).status == TM_EXPIRED) return true;
    turn_clock(fx, 1000);
    uv_sleep(1);
  }
  return false;
}

/* How long t1's conversation is left in peace, once its deadline was not met; 0: it is not. */
static int64_t put_off_for(fixture *fx, const char *id) {
  int64_t left = 0;
  fx->tenant = "t1";
  for (int i = 0; i < 2000 && left <= 0; i++) {
    left = stored_head(fx, id).wake_at - fixture_now(fx);
    if (left <= 0) turn_clock(fx, 1); /* the scheduler asks a tenant's own store only then */
    uv_sleep(1);
  }
  return left;
}

/* They go behind those of others, ever further, and come when the key is there again. */
static void keyless(fixture *fx, int count) {
  static char ids[KEYLESS][TM_ID_SIZE];
  char other[TM_ID_SIZE];
  host *h = &fx->hosts[0];
  for (int i = 0; i < count; i++)
    assert_answer(start(h, ids[i], "deadline"));
  turn_clock(fx, 1);
  fx->tenant = "t2";
  assert_answer(start(h, other, "deadline"));
  put_key(fx, "t1", NULL);
  fixture_restart(fx);
  h = &fx->hosts[0];
  turn_clock(fx, 2000);
  __atomic_store_n(&misses, 0, __ATOMIC_SEQ_CST);
  scheduler_start(h, 10);
  assert_true(expires(fx, "t2", other));
  for (int i = 0; i < count; i++)
    assert_true(put_off_for(fx, ids[i]) > 0);
  for (int round = 0; round < 14; round++) {
    int64_t left = put_off_for(fx, ids[0]);
    assert_in_range(left, round < 12 ? 1 : 600 * 1000, 3600 * 1000);
    turn_clock(fx, left);
  }
  assert_in_range(__atomic_load_n(&misses, __ATOMIC_SEQ_CST), 1, 14);
  put_key(fx, "t1", FIXTURE_KEY);
  turn_clock(fx, 3600 * 1000);
  for (int i = 0; i < count; i++)
    assert_true(expires(fx, "t1", ids[i]));
}

static void test_deadlines_without_a_key(void **unused) {
  (void)unused;
  const struct fixture_backend *b = fixture_backend_next(NULL);
  for (bool first = true; b != NULL; b = fixture_backend_next(b), first = false) {
    if (strcmp(b->scheme, "memory") == 0) continue; /* it forgets them */
    for (int isolated = 0; isolated < 2; isolated++) {
      fixture fx;
      open_with_keys(&fx, b->scheme, isolated == 1);
      keyless(&fx, !first ? 4 : isolated == 1 ? 40 : KEYLESS);
      fixture_close(&fx);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_row),
      cmocka_unit_test(test_plain_stays_plain),
      cmocka_unit_test(test_tampering),
      cmocka_unit_test(test_plaintext_among_sealed),
      cmocka_unit_test(test_no_way_back_to_plaintext),
      cmocka_unit_test(test_plain_events_among_sealed),
      cmocka_unit_test(test_plain_events),
      cmocka_unit_test(test_another_key),
      cmocka_unit_test(test_the_key_of_a_tenant),
      cmocka_unit_test(test_deadlines_without_a_key),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
