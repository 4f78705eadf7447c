/* Whole stores through the public library, as an embedding program moves them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/scratch.h"
#include "tidemill.h"

typedef struct answer {
  int count;
  tm_status status;
  char code[48];
  char json[4096];
} answer;

static void on_reply(void *ud, const tm_reply *r) {
  answer *a = ud;
  a->count++;
  a->status = r->status;
  (void)snprintf(a->json, sizeof(a->json), "%s", r->status == TM_OK ? r->json : r->error->message);
  (void)snprintf(a->code, sizeof(a->code), "%s", r->status == TM_OK ? "" : r->error->code);
}

static int count_progress(void *ud, const tm_progress *p) {
  assert_true(p->done >= 0 && p->total >= 0 && p->rows >= 0);
  (*(int *)ud)++;
  return 1;
}

static int stop_at_once(void *ud, const tm_progress *p) {
  (void)ud, (void)p;
  return 0;
}

typedef struct place {
  char dir[64], file[128], backup[128], setting[192];
  tm_host *host;
} place;

static int set_up(void **state) {
  place *p = calloc(1, sizeof(*p));
  if (p == NULL) return -1;
  *state = p;
  if (!scratch_make(p->dir, sizeof(p->dir), "moving")) return -1;
  (void)snprintf(p->file, sizeof(p->file), "%s/w.db", p->dir);
  (void)snprintf(p->backup, sizeof(p->backup), "%s/b.db", p->dir);
  (void)snprintf(p->setting, sizeof(p->setting), "workflow_persistence.sqlite.database_path=%s",
                 p->file);
  const char *const set[] = {p->setting, NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.set = set;
  tm_error err;
  return tm_host_new(&p->host, &o, &err) == TM_OK ? 0 : -1;
}

static int tear_down(void **state) {
  place *p = *state;
  char command[128];
  tm_host_free(p->host);
  (void)snprintf(command, sizeof(command), "rm -rf '%s'", p->dir);
  int failed = system(command);
  free(p);
  return failed;
}

/* ---- cases ---- */

static void what_is_wrong_is_said_once(void **state) {
  place *p = *state;
  tm_move m = TM_MOVE_INIT;
  answer a = {.count = 0};
  tm_store_backup(p->host, &m, on_reply, &a); /* no file */
  assert_string_equal(a.code, "store.url");
  tm_store_restore(p->host, &m, on_reply, &a);
  assert_string_equal(a.code, "store.url");
  m.to = p->backup;
  tm_store_backup(p->host, &m, on_reply, &a); /* no store yet */
  assert_string_equal(a.code, "store.absent");
  assert_int_not_equal(access(p->backup, F_OK), 0);
  m.size = 1;
  tm_store_backup(p->host, &m, on_reply, &a);
  assert_string_equal(a.code, "options.size");
  tm_store_copy(p->host, &m, on_reply, &a);
  assert_string_equal(a.code, "options.size");
  tm_store_restore(p->host, &m, on_reply, &a);
  assert_string_equal(a.code, "options.size");
  assert_int_equal(a.count, 6);
}

static void make_store(place *p) {
  answer a = {.count = 0};
  char url[160];
  tm_move m = TM_MOVE_INIT;
  (void)snprintf(url, sizeof(url), "sqlite:%s/empty.db", p->dir);
  const char *const set[] = {p->setting, NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.set = set;
  tm_doctor(&o, 0, on_reply, &a); /* looks, and makes nothing */
  assert_int_equal(a.status, TM_OK);
  assert_non_null(strstr(a.json, "there is none"));
  assert_int_not_equal(access(p->file, F_OK), 0);
  m.from = url;
  tm_store_copy(p->host, &m, on_reply, &a);
  assert_string_equal(a.code, "store.absent");
  FILE *f = fopen(url + strlen("sqlite:"), "w"); /* a file that was cut to nothing holds nothing */
  assert_non_null(f);
  assert_int_equal(fclose(f), 0);
  tm_store_copy(p->host, &m, on_reply, &a);
  assert_string_equal(a.code, "store.absent");
  tm_host *maker;
  tm_error err;
  assert_int_equal(tm_host_new(&maker, &o, &err), TM_OK);
  assert_int_equal(tm_host_start(maker, &err), TM_OK);
  tm_host_free(maker);
}

static void progress_is_told_and_stops(void **state) {
  place *p = *state;
  tm_move m = TM_MOVE_INIT;
  answer a = {.count = 0};
  int calls = 0;
  make_store(p);
  m.to = p->backup;
  m.progress = stop_at_once;
  tm_store_backup(p->host, &m, on_reply, &a);
  assert_int_equal(a.status, TM_ECANCELLED);
  assert_string_equal(a.code, "copy.stopped");
  assert_int_not_equal(access(p->backup, F_OK), 0);
  m.progress = count_progress;
  m.progress_ud = &calls;
  tm_store_backup(p->host, &m, on_reply, &a);
  assert_int_equal(a.status, TM_OK);
  assert_int_equal(access(p->backup, F_OK), 0);
  assert_true(calls > 0);
  assert_non_null(strstr(a.json, "\"conversations\":0"));
  assert_int_equal(a.count, 2);
}

static void a_doctor_needs_no_good_configuration(void **state) {
  (void)state;
  const char *const set[] = {"server.lisen=x", NULL};
  tm_options o = TM_OPTIONS_INIT;
  o.set = set;
  answer a = {.count = 0};
  tm_doctor(&o, 1, on_reply, &a);
  assert_int_equal(a.count, 1);
  assert_int_equal(a.status, TM_OK);
  assert_non_null(strstr(a.json, "\"errors\":1"));
  assert_non_null(strstr(a.json, "server.listen")); /* did you mean */
}

int main(void) {
  const struct CMUnitTest cases[] = {
      cmocka_unit_test_setup_teardown(what_is_wrong_is_said_once, set_up, tear_down),
      cmocka_unit_test_setup_teardown(progress_is_told_and_stops, set_up, tear_down),
      cmocka_unit_test(a_doctor_needs_no_good_configuration),
  };
  return cmocka_run_group_tests(cases, NULL, NULL);
}
