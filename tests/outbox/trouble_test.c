/* The deliverer on a store that cannot be written: how often it tries, what it logs, and what is
 * said of the store meanwhile. */
#include <sqlite3.h>

#include "outbox/deliver.h"
#include "tests/journal/fixture.h"

#define NEVER 1000000000 /* ms */

typedef struct office {
  fixture fx;
  host control; /* its thread only */
  tm_http_client *client;
  tm_deliver *deliver;
  tm_log log;
  int looks, lines; /* atomic: how often it asked for the time, and said that it cannot read */
  int given_up;     /* atomic: events */
  int named;        /* atomic: of them those of `broken` */
  char broken[TM_ID_SIZE];
  sqlite3 *db;
} office;

static int64_t counting_now(void *ud) {
  office *o = ud;
  (void)__atomic_add_fetch(&o->looks, 1, __ATOMIC_SEQ_CST);
  return fixture_now(&o->fx);
}

static void on_line(void *ud, const char *line, size_t size) {
  static const char words[] = "events cannot be read", given_up[] = "an event was given up";
  office *o = ud;
  if (memmem(line, size, given_up, sizeof(given_up) - 1) != NULL) {
    if (memmem(line, size, o->broken, strlen(o->broken)) != NULL)
      (void)__atomic_add_fetch(&o->named, 1, __ATOMIC_SEQ_CST);
    (void)__atomic_add_fetch(&o->given_up, 1, __ATOMIC_SEQ_CST);
  }
  if (memmem(line, size, words, sizeof(words) - 1) != NULL)
    (void)__atomic_add_fetch(&o->lines, 1, __ATOMIC_SEQ_CST);
}

static void until(int *counter, int least) {
  for (int i = 0; __atomic_load_n(counter, __ATOMIC_SEQ_CST) < least; i++) {
    assert_true(i < 20000);
    uv_sleep(1);
  }
}

static void open_office(office *o) {
  *o = (office){.control = {.fx = &o->fx}};
  fixture_init(&o->fx, "sqlite");
  o->fx.options.timeout_ms = 5;
  storage_start(&o->fx);
  host_start(&o->fx, 0);
}

/* Another process's lock on the file: it can be read, and nothing can be written. */
static void block(office *o) {
  assert_int_equal(sqlite3_open(o->fx.file, &o->db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(o->db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
}

static void deliver(office *o, int64_t poll_ms) {
  tm_error err;
  o->log = (tm_log){.sink = on_line, .ud = o};
  assert_int_equal(tm__worker_start(&o->control.worker, "control", &err), TM_OK);
  assert_int_equal(tm__http_client_new(&o->client, o->control.worker, 8, &err), TM_OK);
  const tm_deliver_options d = {.worker = o->control.worker,
                                .storage = o->fx.storage,
                                .client = o->client,
                                .clock = {counting_now, o},
                                .log = &o->log,
                                .url = "http://127.0.0.1:1/",
                                .secret = "secret",
                                .timeout_ms = 1000,
                                .give_up_ms = 86400000,
                                .poll_ms = poll_ms};
  assert_int_equal(tm__deliver_new(&o->deliver, &d, &err), TM_OK);
  tm__deliver_hint(o->deliver);
}

static void stop_now(void *ud) {
  office *o = ud;
  tm__deliver_stop(o->deliver);
  tm__http_client_close(o->client);
}

static void close_office(office *o) {
  on_worker(&o->control, stop_now, o);
  assert_int_equal(tm__worker_stop(o->control.worker), 0);
  tm__deliver_free(o->deliver);
  if (o->db != NULL) assert_int_equal(sqlite3_exec(o->db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
  (void)sqlite3_close(o->db);
  fixture_close(&o->fx);
}

static void test_waits_when_it_cannot_take(void **unused) {
  (void)unused;
  office o;
  char id[TM_ID_SIZE];
  open_office(&o);
  assert_answer(start(&o.fx.hosts[0], id, "emit"));
  block(&o);
  deliver(&o, NEVER);
  until(&o.lines, 1);
  uv_sleep(200);
  int looks = __atomic_load_n(&o.looks, __ATOMIC_SEQ_CST);
  assert_in_range(looks, 1, 8); /* those of the beginning */
  for (int i = 0; i < 5; i++) {
    looks = __atomic_load_n(&o.looks, __ATOMIC_SEQ_CST);
    tm__deliver_hint(o.deliver);
    until(&o.looks, looks + 2);
  }
  assert_int_equal(__atomic_load_n(&o.lines, __ATOMIC_SEQ_CST), 1); /* said once */
  close_office(&o);
}

static void test_a_look_does_not_say_that_it_can_be_written(void **unused) {
  (void)unused;
  office o;
  char id[TM_ID_SIZE];
  open_office(&o);
  assert_answer(start(&o.fx.hosts[0], id, "hello"));
  block(&o);
  assert_refused(say(&o.fx.hosts[0], id, "two"), TM_EUNAVAILABLE, "store.busy");
  assert_false(tm__storage_healthy(o.fx.storage));
  deliver(&o, 1);
  for (int looks = 1; looks < 40; looks++) {
    until(&o.looks, looks);
    assert_false(tm__storage_healthy(o.fx.storage));
  }
  close_office(&o);
}

static int attempts_of(office *o, const char *id) {
  char sql[200];
  sqlite3 *db;
  sqlite3_stmt *st;
  (void)snprintf(sql, sizeof(sql), "SELECT max(attempts) FROM outbox WHERE conversation='%s'", id);
  assert_int_equal(sqlite3_open(o->fx.file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(st), SQLITE_ROW);
  int attempts = sqlite3_column_int(st, 0);
  (void)sqlite3_finalize(st);
  (void)sqlite3_close(db);
  return attempts;
}

/* A record that is damaged is set aside at once, and its name is said once; others are posted. */
static void test_one_damaged_event_stops_nobody(void **unused) {
  (void)unused;
  office o;
  char id[TM_ID_SIZE], sql[200];
  open_office(&o);
  assert_answer(start(&o.fx.hosts[0], o.broken, "emit"));
  assert_answer(start(&o.fx.hosts[0], id, "emit"));
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE outbox SET tenant=printf('%%.70c','x') WHERE conversation='%s'", o.broken);
  sqlite3 *db;
  assert_int_equal(sqlite3_open(o.fx.file, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
  (void)sqlite3_close(db);
  deliver(&o, 1);
  until(&o.given_up, 2); /* one behind the other */
  for (int i = 0; attempts_of(&o, id) == 0; i++) {
    assert_true(i < 20000);
    uv_sleep(1);
  }
  assert_int_equal(__atomic_load_n(&o.named, __ATOMIC_SEQ_CST), 2);
  assert_int_equal(__atomic_load_n(&o.given_up, __ATOMIC_SEQ_CST), 2);
  assert_int_equal(__atomic_load_n(&o.lines, __ATOMIC_SEQ_CST), 0);
  close_office(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_waits_when_it_cannot_take),
      cmocka_unit_test(test_a_look_does_not_say_that_it_can_be_written),
      cmocka_unit_test(test_one_damaged_event_stops_nobody),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
