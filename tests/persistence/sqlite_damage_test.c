/* What is damaged, foreign or newer is refused and left as it is, byte for byte. */
#include "damaged_event.h"
#include "damaged_head.h"
#include "damaged_names.h"
#include "damaged_session.h"
#include "file_bytes.h"
#include "persistence/store_sqlite.h"

enum { CONVERSATIONS = 300, PAGE = 4096 };

/* A store with some hundred pages, closed. */
static void fill(fixture *fx) {
  char body[1500];
  memset(body, 'x', sizeof(body) - 1);
  body[sizeof(body) - 1] = '\0';
  fixture_open(fx);
  for (int i = 0; i < CONVERSATIONS; i++)
    turn(fx, nth(i).text, 0, 0, body);
  fixture_close(fx);
}

static tm_status try_open(fixture *fx) {
  memset(&fx->err, 0, sizeof(fx->err));
  tm_status status = fx->backend->open(&fx->store, &fx->options, &fx->err);
  if (status == TM_OK) {
    fx->backend->close(fx->store);
    fx->store = NULL;
  }
  assert_null(fx->store);
  return status;
}

/* Refused with this code, naming the file; nothing changed, nothing left beside it. */
static void must_refuse(fixture *fx, const char *code) {
  file_bytes before = file_read(fx->file);
  assert_int_equal(try_open(fx), TM_ECORRUPT);
  assert_string_equal(fx->err.code, code);
  assert_non_null(strstr(fx->err.message, "x.db"));
  file_must_be(fx->file, before);
  assert_int_equal(file_size(fx->file, "-wal"), -1);
  assert_int_equal(file_size(fx->file, "-shm"), -1);
  assert_int_equal(file_size(fx->file, "-journal"), -1);
  free(before.ptr);
}

static void foreign_bytes_are_no_store(void **state) {
  fixture *fx = *state;
  static char bytes[64 * 1024];
  fill(fx);
  const char text[] = "Dear diary, this is not a database.\n";
  file_write(fx->file, text, sizeof(text) - 1);
  must_refuse(fx, "store.damaged");
  file_write(fx->file, "x", 1);
  must_refuse(fx, "store.damaged");
  file_write(fx->file, bytes, sizeof(bytes)); /* zeros */
  must_refuse(fx, "store.damaged");
  file_scribble(bytes, 0, sizeof(bytes));
  file_write(fx->file, bytes, sizeof(bytes));
  must_refuse(fx, "store.damaged");
}

static void truncated_files(void **state) {
  fixture *fx = *state;
  fill(fx);
  file_bytes whole = file_read(fx->file);
  const size_t lengths[] = {50,   99,        100,           1000,          PAGE,
                            5000, 10 * PAGE, whole.len / 2, whole.len - 1, whole.len - PAGE};
  for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
    file_write(fx->file, whole.ptr, lengths[i]);
    must_refuse(fx, "store.damaged");
  }
  file_write(fx->file, whole.ptr, whole.len); /* and the whole one is good */
  assert_ok(fx, try_open(fx));
  free(whole.ptr);
}

static void scribbled_pages(void **state) {
  fixture *fx = *state;
  fill(fx);
  file_bytes whole = file_read(fx->file);
  char *copy = malloc(whole.len);
  assert_non_null(copy);
  size_t pages = whole.len / PAGE;
  assert_true(pages > 100);
  for (size_t page = 0; page < pages; page += page < 20 ? 1 : 17) {
    memcpy(copy, whole.ptr, whole.len);
    size_t from = page == 0 ? 100 : page * PAGE; /* page 0: the schema behind the header */
    file_scribble(copy, from, (page + 1) * PAGE);
    file_write(fx->file, copy, whole.len);
    must_refuse(fx, "store.damaged");
  }
  free(copy);
  free(whole.ptr);
}

static void scribbled_header(void **state) {
  fixture *fx = *state;
  fill(fx);
  file_bytes whole = file_read(fx->file);
  const size_t fields[][2] = {{0, 16}, {16, 18}, {18, 20}, {28, 32}, {0, 68}};
  char *copy = malloc(whole.len);
  assert_non_null(copy);
  for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
    memcpy(copy, whole.ptr, whole.len);
    file_scribble(copy, fields[i][0], fields[i][1]);
    file_write(fx->file, copy, whole.len);
    must_refuse(fx, "store.damaged");
  }
  memcpy(copy, whole.ptr, whole.len);
  file_scribble(copy, 0, 100);
  file_write(fx->file, copy, whole.len);
  must_refuse(fx, "store.damaged");
  free(copy);
  free(whole.ptr);
}

/* A store too large to be looked through at open: the ends are looked at. */
static void large_stores(void **state) {
  fixture *fx = *state;
  size_t len = 1 << 20;
  char *body = malloc(len + 1);
  assert_non_null(body);
  memset(body, 'x', len);
  body[len] = '\0';
  fixture_open(fx);
  for (int i = 0; i < 10; i++)
    turn(fx, nth(i).text, 0, 0, body);
  turn(fx, nth(10).text, 0, 0, "{}");
  fixture_close(fx);
  free(body);
  assert_ok(fx, try_open(fx));
  file_bytes whole = file_read(fx->file);
  assert_true(whole.len > 10 << 20);
  file_write(fx->file, whole.ptr, whole.len - 9 * PAGE);
  must_refuse(fx, "store.damaged");
  file_scribble(whole.ptr, whole.len - PAGE, whole.len); /* the newest row's page */
  file_write(fx->file, whole.ptr, whole.len);
  must_refuse(fx, "store.damaged");
  free(whole.ptr);
}

static void a_head_that_misses_its_row(void **state) {
  fixture *fx = *state;
  fill(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "PRAGMA wal_checkpoint(TRUNCATE);"
              "DELETE FROM heads WHERE id=(SELECT conversation FROM journal WHERE id=300)");
  sqlite3_close(db);
  must_refuse(fx, "store.damaged");
}

static void missing_tables(void **state) {
  fixture *fx = *state;
  fill(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "ALTER TABLE sessions RENAME TO gone");
  sqlite3_close(db);
  must_refuse(fx, "store.damaged");
  assert_non_null(strstr(fx->err.message, "sessions"));
}

static void other_programs_files(void **state) {
  fixture *fx = *state;
  fill(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "PRAGMA application_id=0");
  sqlite3_close(db);
  must_refuse(fx, "store.foreign");
  db = sql_open(fx->file);
  sql_run(db, "PRAGMA application_id=252006673");
  sqlite3_close(db);
  must_refuse(fx, "store.foreign");
}

static void newer_files(void **state) {
  fixture *fx = *state;
  fill(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "PRAGMA user_version=4");
  sqlite3_close(db);
  must_refuse(fx, "store.newer");
  assert_non_null(strstr(fx->err.message, "version 4"));
}

/* A newer program wrote into the log and crashed: the file itself still has the old number. */
static void newer_in_the_log(void **state) {
  fixture *fx = *state;
  fill(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "PRAGMA user_version=7");
  char name[256];
  (void)snprintf(name, sizeof(name), "%s-wal", fx->file);
  file_bytes file = file_read(fx->file), log = file_read(name);
  sqlite3_close(db); /* takes the log into the file */
  file_write(fx->file, file.ptr, file.len);
  file_write(name, log.ptr, log.len);
  assert_int_equal(try_open(fx), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.newer");
  file_must_be(fx->file, file);
  file_must_be(name, log);
  free(file.ptr);
  free(log.ptr);
}

static void a_log_without_its_file(void **state) {
  fixture *fx = *state;
  fill(fx);
  const char *suffixes[] = {"-wal", "-journal"};
  for (int i = 0; i < 2; i++) {
    char name[256];
    (void)snprintf(name, sizeof(name), "%s%s", fx->file, suffixes[i]);
    file_write(name, "precious", 8);
    file_write(fx->file, "", 0);
    assert_int_equal(try_open(fx), TM_ECORRUPT);
    assert_int_equal(file_size(fx->file, ""), 0);
    assert_int_equal(unlink(fx->file), 0);
    assert_int_equal(try_open(fx), TM_ECORRUPT);
    assert_string_equal(fx->err.code, "store.damaged");
    assert_int_equal(file_size(fx->file, ""), -1);
    assert_int_equal(file_size(name, ""), 8);
    assert_int_equal(unlink(name), 0);
  }
  assert_ok(fx, try_open(fx));
}

/* The process dies and leaves its log: what the log has counts. */
static void a_crash_leaves_a_log(void **state) {
  fixture *fx = *state;
  fill(fx);
  fixture_open(fx);
  turn(fx, nth(0).text, 1, 1, "{\"in\":\"the log\"}");
  char name[256];
  (void)snprintf(name, sizeof(name), "%s-wal", fx->file);
  file_bytes file = file_read(fx->file), log = file_read(name);
  fixture_close(fx);
  assert_int_equal(file_size(fx->file, "-wal"), -1); /* a clean end leaves none */
  file_write(fx->file, file.ptr, file.len);
  file_write(name, log.ptr, log.len);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(0).text).revision, 2);
  fixture_close(fx);
  file_scribble(file.ptr, 100, PAGE); /* and a damaged file with a log stays as it is */
  file_write(fx->file, file.ptr, file.len);
  file_write(name, "", 0);
  assert_int_equal(try_open(fx), TM_ECORRUPT);
  file_must_be(fx->file, file);
  free(file.ptr);
  free(log.ptr);
}

/* The number of a table's first page. */
static size_t page_of(const char *path, const char *table) {
  char sql[100];
  int64_t page = 0;
  sqlite3 *db = sql_open(path);
  (void)snprintf(sql, sizeof(sql), "SELECT rootpage FROM sqlite_schema WHERE name='%s'", table);
  assert_int_equal(tm__sqlite_int(db, sql, &page), SQLITE_OK);
  sqlite3_close(db);
  assert_true(page > 1);
  return (size_t)page;
}

/* The same in the mode without a write-ahead log: the journal of an unfinished write is rolled
 * back. */
static void a_crash_leaves_a_journal(void **state) {
  fixture *fx = *state;
  fx->options.wal = false;
  fill(fx);
  char name[256];
  (void)snprintf(name, sizeof(name), "%s-journal", fx->file);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "PRAGMA cache_size=1; PRAGMA cache_spill=1; BEGIN; UPDATE heads SET revision=99;"
              "UPDATE journal SET body='gone'");
  file_bytes file = file_read(fx->file), journal = file_read(name);
  sql_run(db, "ROLLBACK");
  sqlite3_close(db);
  file_write(fx->file, file.ptr, file.len);
  file_write(name, journal.ptr, journal.len);
  sql_must_give(fx->file, "SELECT max(revision) FROM heads", "1\n"); /* it is a hot one */
  file_write(fx->file, file.ptr, file.len);
  file_write(name, journal.ptr, journal.len);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(7).text).revision, 1);
  turn(fx, nth(7).text, 1, 8, "{}");
  fixture_close(fx);
  size_t page = page_of(fx->file, "scripts"); /* one that the journal does not mend */
  file_scribble(file.ptr, (page - 1) * PAGE, page * PAGE);
  file_write(fx->file, file.ptr, file.len);
  file_write(name, journal.ptr, journal.len);
  assert_int_equal(try_open(fx), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.damaged");
  free(file.ptr);
  free(journal.ptr);
}

static tm_status ignore_row(void *ud, const tm_row *row) {
  (void)row;
  ++*(int *)ud;
  return TM_OK;
}

static tm_status ignore_head(void *ud, const tm_head *head) {
  (void)head;
  ++*(int *)ud;
  return TM_OK;
}

/* Pages that go bad while the store is open. */
static void damage_met_later(void **state) {
  fixture *fx = *state;
  fill(fx);
  file_bytes whole = file_read(fx->file);
  fixture_open(fx);
  char *copy = malloc(whole.len);
  assert_non_null(copy);
  memcpy(copy, whole.ptr, whole.len);
  file_scribble(copy, PAGE, whole.len);
  file_write(fx->file, copy, whole.len);
  int seen = 0;
  tm_head head;
  tm_list_filter all = {.tenant = TM_S("default"), .status = -1, .limit = 1000};
  const tm_store_backend *b = fx->backend;
  assert_int_equal(
      b->chain(fx->reader, tm__slice(nth(4).text), 5, false, ignore_row, &seen, &fx->err),
      TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.damaged");
  assert_int_equal(b->head(fx->reader, tm__slice(nth(5).text), &head, &fx->err), TM_ECORRUPT);
  assert_int_equal(b->list(fx->reader, &all, ignore_head, &seen, &fx->err), TM_ECORRUPT);
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(1000).text, 0, &row);
  assert_int_equal(commit_one(fx, &c), TM_ECORRUPT);
  assert_int_equal(c.status, TM_ECORRUPT);
  assert_int_equal(seen, 0);
  file_write(fx->file, whole.ptr, whole.len); /* the backup: the same connections go on */
  assert_ok(fx, b->head(fx->reader, tm__slice(nth(5).text), &head, &fx->err));
  turn(fx, nth(5).text, 1, 6, "{}");
  free(copy);
  free(whole.ptr);
}

/* Values that our structs cannot hold were not written by us. */
static void values_out_of_bounds(void **state) {
  static const char *const harms[] = {
      "UPDATE heads SET tenant=printf('%0100d',0) WHERE id LIKE '%005'",
      "UPDATE heads SET status=11 WHERE id LIKE '%005'",
      "UPDATE heads SET recent=x'00' WHERE id LIKE '%005'",
      "UPDATE heads SET recent=zeroblob(216) WHERE id LIKE '%005'",
  };
  fixture *fx = *state;
  fill(fx);
  file_bytes whole = file_read(fx->file);
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    tm_head head;
    int seen = 0;
    file_write(fx->file, whole.ptr, whole.len);
    sqlite3 *db = sql_open(fx->file);
    sql_run(db, harms[i]);
    sql_run(db, "UPDATE journal SET kind=9 WHERE id=6");
    sqlite3_close(db);
    fixture_open(fx);
    const tm_store_backend *b = fx->backend;
    assert_int_equal(b->head(fx->reader, tm__slice(nth(5).text), &head, &fx->err), TM_ECORRUPT);
    assert_int_equal(
        b->chain(fx->reader, tm__slice(nth(5).text), 6, false, ignore_row, &seen, &fx->err),
        TM_ECORRUPT);
    assert_int_equal(seen, 0);
    fixture_close(fx);
  }
  free(whole.ptr);
}

static int set_up(void **state) {
  static fixture fx;
  fixture_make(&fx, &tm__store_sqlite);
  *state = &fx;
  return 0;
}

static int tear_down(void **state) {
  fixture_remove(*state);
  return 0;
}

static void stretch_tenant(void *ud, const char *id) {
  const fixture *fx = ud;
  char sql[200];
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE outbox SET tenant=printf('%%.70c','x') WHERE conversation='%s' AND idx=0",
                 id);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void one_event_stops_nobody(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  damaged_event(fx, stretch_tenant, fx);
}

static const char *harm; /* what is set in the head */

static void harm_head(void *ud, const char *id) {
  const fixture *fx = ud;
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE heads SET %s WHERE id='%s'", harm, id);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void one_head_stops_nobody(void **state) {
  static const char *const harms[] = {"status=11",
                                      "recent=zeroblob(216)",
                                      "revision=0",
                                      "session=printf('%0200d',0)",
                                      "tenant=printf('%.70c','x')",
                                      "session=CAST(x'73ff' AS TEXT)",
                                      "flow=CAST(x'c372' AS TEXT)",
                                      "step=CAST(x'f3' AS TEXT)"};
  fixture *fx = *state;
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    harm = harms[i];
    fixture_open(fx);
    damaged_head(fx, harm_head, fx);
    fixture_close(fx);
    assert_int_equal(unlink(fx->file), 0);
  }
}

/* It names the rows of another, which wait for the sweep. */
static void it_goes_whatever_its_tip(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  bool more;
  fixture_open(fx);
  for (int n = 1; n <= 2; n++)
    begin_nth(fx, n, true);
  assert_ok(fx, b->purge(fx->writer, tm__slice(nth(1).text), 1, true, &fx->err));
  harm = "status=11,tip=(SELECT tip FROM purged)";
  harm_head(fx, nth(2).text);
  assert_ok(fx, b->purge(fx->writer, tm__slice(nth(2).text), -1, true, &fx->err));
  assert_ok(fx, b->sweep(fx->writer, 100, &more, &fx->err));
  sql_must_give(fx->file, "SELECT count(*) FROM heads", "0\n");
  sql_must_give(fx->file, "SELECT count(*) FROM purged", "0\n");
}

/* Not even the id can be read: what can be of it names it, and the walk goes on behind it. */
static void nor_does_a_head_without_a_name(void **state) {
  fixture *fx = *state;
  const tm_list_filter all = {.status = -1, .limit = 200};
  seen_heads s = {0};
  fixture_open(fx);
  for (int n = 1; n <= 3; n++)
    begin_nth(fx, n, true);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "UPDATE heads SET id=id||'-and-more' WHERE id LIKE '%002'");
  sql_run(db, "UPDATE heads SET id='' WHERE id LIKE '%001'");
  sqlite3_close(db);
  assert_ok(fx, fx->backend->list(fx->reader, &all, see_a_head, &s, &fx->err));
  assert_int_equal(s.count, 2);
  assert_string_equal(s.items[1].id, nth(2).text);
  assert_true(tm__head_is_damaged(&s.items[1]) && !tm__head_is_damaged(&s.items[0]));
  s.count = 0;
  assert_ok(fx, fx->backend->due(fx->writer, fx->now, 0, 1, see_a_head, &s, &fx->err));
  assert_int_equal(s.count, 2);
  assert_string_equal(s.items[1].id, nth(3).text);
}

static void harm_session(void *ud) {
  const fixture *fx = ud;
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE sessions SET %s WHERE id='s1'", harm);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void one_session_stops_nobody(void **state) {
  static const char *const harms[] = {"flags=-1", "flags=1<<40", "created=-5", "ended=-5",
                                      "created=-9223372036854775808"};
  fixture *fx = *state;
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    harm = harms[i];
    fixture_open(fx);
    damaged_session(fx, harm_session, fx, strncmp(harm, "ended", 5) != 0, true);
    fixture_close(fx);
    assert_int_equal(unlink(fx->file), 0);
  }
}

static void nor_does_a_session_without_a_name(void **state) {
  static const char *const harms[] = {"id=printf('s1%.200c','x')", "tenant=''",
                                      "id=CAST(x'733100ff' AS TEXT)", "id=CAST(x'7331ff' AS TEXT)"};
  fixture *fx = *state;
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    harm = harms[i];
    fixture_open(fx);
    nameless_session(fx, harm_session, fx);
    fixture_close(fx);
    assert_int_equal(unlink(fx->file), 0);
  }
}

static void harm_event(void *ud, const char *id) {
  const fixture *fx = ud;
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE outbox SET %s WHERE conversation='%s' AND idx=0", harm,
                 id);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void nor_does_an_event_without_a_name(void **state) {
  static const char *const harms[] = {"conversation=printf('%.70c','x')",
                                      "conversation=''",
                                      "conversation=CAST(x'30ff' AS TEXT)",
                                      "idx=1<<32",
                                      "revision=-1",
                                      "attempts=-1"};
  fixture *fx = *state;
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    harm = harms[i];
    fixture_open(fx);
    nameless_event(fx, harm_event, fx);
    fixture_close(fx);
    assert_int_equal(unlink(fx->file), 0);
  }
}

static void harm_tenant(void *ud) {
  const fixture *fx = ud;
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "UPDATE tenants SET tenant=printf('%.70c','A') WHERE tenant='acme'");
  sqlite3_close(db);
}

static void nor_does_a_tenant_without_one(void **state) {
  fixture_open(*state);
  nameless_tenant(*state, harm_tenant, *state);
}

static void harm_mark(void *ud, const char *id) {
  const fixture *fx = ud;
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE purged SET %s WHERE conversation='%s'", harm, id);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void nor_does_a_mark_without_one(void **state) {
  static const char *const harms[] = {"conversation=printf('%.70c','x')", "tip=-7"};
  fixture *fx = *state;
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    harm = harms[i];
    fixture_open(fx);
    nameless_mark(fx, harm_mark, fx);
    sql_must_give(fx->file, "SELECT count(*) FROM journal",
                  "1\n"); /* of nobody can be told whose */
    fixture_close(fx);
    assert_int_equal(unlink(fx->file), 0);
  }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(foreign_bytes_are_no_store),
      CASE(truncated_files),
      CASE(scribbled_pages),
      CASE(scribbled_header),
      CASE(large_stores),
      CASE(a_head_that_misses_its_row),
      CASE(missing_tables),
      CASE(other_programs_files),
      CASE(newer_files),
      CASE(newer_in_the_log),
      CASE(a_log_without_its_file),
      CASE(a_crash_leaves_a_log),
      CASE(a_crash_leaves_a_journal),
      CASE(damage_met_later),
      CASE(values_out_of_bounds),
      CASE(one_event_stops_nobody),
      CASE(one_head_stops_nobody),
      CASE(it_goes_whatever_its_tip),
      CASE(nor_does_a_head_without_a_name),
      CASE(one_session_stops_nobody),
      CASE(nor_does_an_event_without_a_name),
      CASE(nor_does_a_tenant_without_one),
      CASE(nor_does_a_mark_without_one),
      CASE(nor_does_a_session_without_a_name),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
