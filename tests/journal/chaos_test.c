/* Two hosts, one store, short leases, a clock that runs: whatever happens to a message on its way,
 * what was answered is in the transcript exactly once, and what was refused is not. Whatever
 * happens to messages that come at once, too: several of them may be one, none counts twice. */
#include "fixture.h"

#define CONVERSATIONS 6
#define EACH          25 /* messages per conversation */

typedef struct ticker {
  fixture *fx;
  bool stop; /* atomic */
  uv_thread_t thread;
} ticker;

static void tick(void *arg) {
  ticker *t = arg;
  while (!__atomic_load_n(&t->stop, __ATOMIC_SEQ_CST)) {
    turn_clock(t->fx, 1);
    uv_sleep(1);
  }
}

static uint32_t next_random(uint32_t *seed) {
  *seed = *seed * 1664525U + 1013904223U;
  return *seed >> 8;
}

static int occurrences(const char *text, const char *of) {
  int n = 0;
  for (const char *at = strstr(text, of); at != NULL; at = strstr(at + 1, of))
    n++;
  return n;
}

/* The texts of the whole transcript. */
static void read_transcript(fixture *fx, const char *id, tm_buf *out) {
  tm_buf next = {0};
  do {
    answer *a = read_it(fx, id, TM_READ_MESSAGES, next.len > 0 ? next.ptr : "", 200);
    assert_answer(a);
    tm__buf_text(out, a->json);
    tm__buf_clear(&next);
    (void)tm__json_get_text(tm__slice(a->json), "next", &next);
  } while (next.len > 0);
  tm__buf_free(&next);
}

typedef struct message {
  char what[32], key[32];
  answer *first, *repeat;
} message;

static void send_message(fixture *fx, const char *id, message *m, int number, uint32_t *seed) {
  static const char *const kinds[] = {"plain", "plain", "call", "call2", "suspend", "checkpoint"};
  uint32_t dice = next_random(seed);
  host *h = &fx->hosts[dice % 2];
  (void)snprintf(m->what, sizeof(m->what), "%s#%d#", kinds[(dice >> 1) % 6], number);
  (void)snprintf(m->key, sizeof(m->key), "key%d", number);
  m->first = say_keyed(h, id, m->what, m->key);
  if ((dice >> 8) % 3 == 0) m->repeat = say_keyed(&fx->hosts[(dice >> 4) % 2], id, m->what, m->key);
}

static bool may_be_refused(const fixture *fx, const char *code) {
  bool rejects = strcmp(fx->concurrency, "reject") == 0;
  bool interrupts = strcmp(fx->concurrency, "interrupt") == 0;
  return strcmp(code, "conversation.conflict") == 0 ||
         (rejects && strcmp(code, "conversation.busy") == 0) ||
         (interrupts && strcmp(code, "conversation.interrupted") == 0);
}

static void check(const fixture *fx, const message *m, const char *transcript) {
  const char *text = strchr(m->what, '#'); /* before it a resumed retry says so */
  bool done = await(m->first)->status == TM_OK;
  if (!done && !may_be_refused(fx, m->first->error.code)) fail_msg("%s", m->first->error.message);
  if (m->repeat != NULL && await(m->repeat)->status == TM_OK) {
    if (done) assert_string_equal(m->first->json, m->repeat->json);
    done = true;
  }
  if (occurrences(transcript, text) != (done ? 1 : 0))
    print_error("%s: %s %s\n", fx->concurrency, m->what, m->first->error.code);
  assert_int_equal(occurrences(transcript, text), done ? 1 : 0);
}

static void run_chaos(fixture *fx, uint32_t seed) {
  char ids[CONVERSATIONS][TM_ID_SIZE];
  static message all[CONVERSATIONS][EACH];
  memset(all, 0, sizeof(all));
  for (int c = 0; c < CONVERSATIONS; c++) {
    assert_answer(start(&fx->hosts[c % 2], ids[c], "hello"));
  }
  for (int i = 0; i < EACH; i++) {
    for (int c = 0; c < CONVERSATIONS; c++) {
      send_message(fx, ids[c], &all[c][i], c * EACH + i, &seed);
      if (i > 2) (void)await(all[c][i - 2].first);
    }
  }
  for (int c = 0; c < CONVERSATIONS; c++) {
    tm_buf transcript = {0};
    for (int i = 0; i < EACH; i++) {
      (void)await(all[c][i].first);
      if (all[c][i].repeat != NULL) (void)await(all[c][i].repeat);
    }
    read_transcript(fx, ids[c], &transcript);
    for (int i = 0; i < EACH; i++)
      check(fx, &all[c][i], transcript.ptr);
    tm__buf_free(&transcript);
  }
}

static void test_chaos(void **unused) {
  (void)unused;
  static const char *const policies[] = {"queue", "reject", "merge", "interrupt"};
  for (uint32_t seed = 0; seed < 4 * FIXTURE_BACKENDS; seed++) {
    fixture fx;
    fixture_init(&fx, fixture_backends[seed % FIXTURE_BACKENDS].scheme);
    fx.lease_ms = 4;
    fx.retry_ms = 3;
    fx.queue_limit = 64;
    fx.concurrency = policies[seed / FIXTURE_BACKENDS];
    fx.cache_bytes = seed % 2 == 0 ? 1 << 20 : 0;
    storage_start(&fx);
    for (int i = 0; i < HOSTS; i++) {
      host_start(&fx, i);
      scheduler_start(&fx.hosts[i], 2);
    }
    ticker t = {.fx = &fx};
    assert_int_equal(uv_thread_create(&t.thread, tick, &t), 0);
    run_chaos(&fx, seed);
    __atomic_store_n(&t.stop, true, __ATOMIC_SEQ_CST);
    assert_int_equal(uv_thread_join(&t.thread), 0);
    fixture_close(&fx);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_chaos)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
