/* The SQLite file itself: how it is made, its settings, its views, its migrations, its cost. */
#include "file_bytes.h"
#include "persistence/store_sqlite.h"

static tm_status try_open(fixture *fx) {
  memset(&fx->err, 0, sizeof(fx->err));
  return fx->backend->open(&fx->store, &fx->options, &fx->err);
}

static void must_refuse(fixture *fx, tm_status status, const char *code) {
  assert_int_equal(try_open(fx), status);
  assert_string_equal(fx->err.code, code);
  assert_null(fx->store);
}

/* ---- the file ---- */

static unsigned mode_of(const char *path) {
  struct stat st;
  assert_int_equal(stat(path, &st), 0);
  return st.st_mode & 0777;
}

static void a_new_store(void **state) {
  fixture *fx = *state;
  char dir[200];
  (void)snprintf(dir, sizeof(dir), "%s/a b%%/c/d", fx->dir);
  (void)snprintf(fx->file, sizeof(fx->file), "%.120s/a b%%/c/d/x?.db", fx->dir);
  fixture_open(fx);
  assert_int_equal(mode_of(fx->file), 0600);
  assert_int_equal(mode_of(dir), 0700);
  sql_must_give(fx->file, "PRAGMA application_id", "1416187244\n");
  sql_must_give(fx->file, "PRAGMA user_version", "3\n");
  sql_must_give(fx->file, "PRAGMA journal_mode", "wal\n");
  sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
  assert_int_equal(file_size(fx->file, ".new"), -1);
  fixture_close(fx);
  assert_int_equal(file_size(fx->file, "-wal"), -1);
  assert_int_equal(file_size(fx->file, "-shm"), -1);
}

static void an_empty_file_is_a_new_store(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  fixture_close(fx);
  file_write(fx->file, "", 0);
  char draft[256]; /* left by a process that died while making a store */
  (void)snprintf(draft, sizeof(draft), "%s.new", fx->file);
  file_write(draft, "half", 4);
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, "{}");
  assert_int_equal(file_size(fx->file, ".new"), -1);
}

static void places_that_are_none(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  fixture_close(fx);
  char under[256], dir[256];
  (void)snprintf(under, sizeof(under), "%s/y.db", fx->file);
  (void)snprintf(dir, sizeof(dir), "%s/a b%%", fx->dir);
  fx->options.location = "";
  must_refuse(fx, TM_EINVAL, "store.location");
  fx->options.location = "data/";
  must_refuse(fx, TM_EINVAL, "store.location");
  fx->options.location = dir;
  must_refuse(fx, TM_EINVAL, "store.location");
  fx->options.location = under;
  must_refuse(fx, TM_EUNAVAILABLE, "store.io");
  assert_non_null(strstr(fx->err.message, fx->file));
}

static void a_link_is_followed(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, "{}");
  fixture_close(fx);
  char link[256];
  (void)snprintf(link, sizeof(link), "%s/link.db", fx->dir);
  assert_int_equal(symlink(fx->file, link), 0);
  fx->options.location = link;
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  assert_int_equal(file_size(link, "-wal"), -1); /* the log lies beside the file */
  assert_true(file_size(fx->file, "-wal") >= 0);
}

/* ---- settings ---- */

static void without_a_write_ahead_log(void **state) {
  fixture *fx = *state;
  fx->options.wal = false;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, "{}");
  sql_must_give(fx->file, "PRAGMA journal_mode", "delete\n");
  assert_int_equal(file_size(fx->file, "-wal"), -1);
  fixture_close(fx);
  fx->options.wal = true; /* the mode may be changed */
  fixture_open(fx);
  sql_must_give(fx->file, "PRAGMA journal_mode", "wal\n");
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
}

static void the_log_cannot_go_while_others_use_it(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  tm_store *second = NULL;
  fx->options.wal = false;
  assert_int_not_equal(fx->backend->open(&second, &fx->options, &fx->err), TM_OK);
  assert_null(second);
  turn(fx, nth(1).text, 0, 0, "{}");
}

static void auto_vacuum_is_read_back(void **state) {
  fixture *fx = *state;
  fx->options.auto_vacuum = true;
  fixture_open(fx);
  sql_must_give(fx->file, "PRAGMA auto_vacuum", "2\n");
  fixture_close(fx);
  fx->options.auto_vacuum = false;
  must_refuse(fx, TM_EINVAL, "store.auto_vacuum");
  fx->options.auto_vacuum = true;
  fixture_open(fx);
  fixture_close(fx);
  sqlite3 *db = sql_open(fx->file); /* what the message advises */
  sql_run(db, "PRAGMA journal_mode=DELETE; PRAGMA auto_vacuum=0; VACUUM");
  sqlite3_close(db);
  must_refuse(fx, TM_EINVAL, "store.auto_vacuum");
  fx->options.auto_vacuum = false;
  fixture_open(fx);
}

static void freed_pages_go_back(void **state) {
  fixture *fx = *state;
  fx->options.auto_vacuum = true;
  fixture_open(fx);
  for (int i = 0; i < 32; i++) { /* keys of long tenants fill pages */
    tm_commit c = commit_of(fx, nth(i).text, 0, NULL);
    c.start_key = (uint64_t)i + 1;
    memset(c.head.tenant, 'a' + i % 26, sizeof(c.head.tenant) - 1);
    assert_ok(fx, commit_one(fx, &c));
  }
  sqlite3 *db = sql_open(fx->file);
  sql_run(db,
          "CREATE TABLE waste(x); INSERT INTO waste VALUES(zeroblob(400000)); DROP TABLE waste");
  int64_t before = 0, after = 0;
  assert_int_equal(tm__sqlite_int(db, "PRAGMA freelist_count", &before), SQLITE_OK);
  fx->now += TM_KEY_AGE_MS + 1;
  tm_commit c = commit_of(fx, nth(100).text, 0, NULL);
  c.start_key = 1000;
  assert_ok(fx, commit_one(fx, &c));
  assert_int_equal(tm__sqlite_int(db, "PRAGMA freelist_count", &after), SQLITE_OK);
  sqlite3_close(db);
  assert_in_range(before - after, 5, 9);
}

static void commits_are_synced(void **state) {
  fixture *fx = *state;
  int64_t mode = 0;
  fixture_open(fx);
  assert_int_equal(tm__sqlite_int(fx->writer->db, "PRAGMA synchronous", &mode), SQLITE_OK);
  assert_int_equal(mode, 3); /* EXTRA */
  assert_int_equal(tm__sqlite_int(fx->reader->db, "PRAGMA query_only", &mode), SQLITE_OK);
  assert_int_equal(mode, 1);
}

/* A lock that somebody else holds passes: the same connection works again. */
static void another_writer_is_waited_for(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "BEGIN IMMEDIATE");
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  assert_int_equal(commit_one(fx, &c), TM_EUNAVAILABLE);
  assert_int_equal(c.status, TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.busy");
  assert_non_null(strstr(fx->err.message, fx->file));
  assert_int_equal(fx->backend->script_put(fx->writer, TM_S("a"), TM_S("b"), TM_S("c"), &fx->err),
                   TM_EUNAVAILABLE);
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, &fx->err),
                   TM_ENOTFOUND); /* readers do not wait */
  sql_run(db, "COMMIT");
  sqlite3_close(db);
  assert_ok(fx, commit_one(fx, &c));
}

/* ---- migrations ---- */

static const tm_sqlite_migration steps[] = {
    {1, "CREATE TABLE a(x); INSERT INTO a VALUES(1)"},
    {2, "ALTER TABLE a ADD COLUMN y; UPDATE a SET y=x+1"},
    {3, "CREATE TABLE b AS SELECT x+y AS z FROM a"},
};

static void migrations_run_in_order(void **state) {
  fixture *fx = *state;
  char path[256];
  (void)snprintf(path, sizeof(path), "%s/m.db", fx->dir);
  sqlite3 *db = sql_open(path);
  assert_ok(fx, tm__sqlite_migrate(db, path, steps, 1, &fx->err));
  sql_must_give(path, "SELECT * FROM a", "1\n");
  assert_ok(fx, tm__sqlite_migrate(db, path, steps, 3, &fx->err)); /* only what is missing */
  sql_must_give(path, "SELECT z FROM b", "3\n");
  sql_must_give(path, "PRAGMA user_version", "3\n");
  assert_ok(fx, tm__sqlite_migrate(db, path, steps, 3, &fx->err));
  sql_must_give(path, "SELECT count(*) FROM a", "1\n");
  assert_int_equal(tm__sqlite_migrate(db, path, steps, 2, &fx->err), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.newer");
  sqlite3_close(db);
}

static void a_failing_migration_changes_nothing(void **state) {
  static const tm_sqlite_migration bad[] = {
      {1, "CREATE TABLE a(x); INSERT INTO a VALUES(1)"},
      {2, "CREATE TABLE c(x)"},
      {3, "INSERT INTO nowhere VALUES(1)"},
  };
  fixture *fx = *state;
  char path[256];
  (void)snprintf(path, sizeof(path), "%s/m.db", fx->dir);
  sqlite3 *db = sql_open(path);
  assert_ok(fx, tm__sqlite_migrate(db, path, bad, 1, &fx->err));
  assert_int_not_equal(tm__sqlite_migrate(db, path, bad, 3, &fx->err), TM_OK);
  assert_non_null(strstr(fx->err.message, "nowhere"));
  assert_true(sqlite3_get_autocommit(db)); /* no transaction is left open */
  sql_must_give(path, "SELECT name FROM sqlite_schema", "a\n");
  sql_must_give(path, "PRAGMA user_version", "1\n");
  sqlite3_close(db);
}

/* Our file before its first version: brought forward at open, unless somebody else uses it. */
static void an_older_store_is_brought_forward(void **state) {
  fixture *fx = *state;
  tm_store *other = NULL;
  fixture_open(fx);
  fixture_close(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "PRAGMA user_version=0; DROP VIEW workflow_conversations; DROP VIEW workflow_steps;"
              "DROP VIEW workflow_checkpoints; DROP VIEW workflow_sessions; DROP TABLE heads;"
              "DROP TABLE journal; DROP TABLE start_keys; DROP TABLE sessions; DROP TABLE scripts;"
              "DROP TABLE views; DROP TABLE session_counts; DROP TABLE purged; DROP TABLE notes;"
              "DROP TABLE tenants; DROP TABLE outbox");
  sqlite3_close(db);
  fixture_open(fx); /* forward */
  turn(fx, nth(1).text, 0, 0, "{}");
  sql_must_give(fx->file, "PRAGMA user_version", "3\n");
  db = sql_open(fx->file);
  sql_run(db, "PRAGMA user_version=0");
  assert_int_equal(fx->backend->open(&other, &fx->options, &fx->err), TM_EUNAVAILABLE);
  assert_non_null(strstr(fx->err.message, "stop that one first"));
  sql_run(db, "PRAGMA user_version=3");
  sqlite3_close(db);
}

/* ---- views ---- */

#define BODY                                                                                       \
  "{\"status\":\"waiting_input\",\"step\":\"ask\",\"steps\":["                                     \
  "{\"seq\":1,\"step_id\":\"welcome\",\"type\":\"agent_response\",\"agent\":\"cs\",\"attempt\":1," \
  "\"input\":null,\"output\":\"h\xc3\xa9llo\",\"start\":10,\"end\":20,\"status\":\"completed\"},"  \
  "{\"seq\":2,\"step_id\":\"look\",\"type\":\"action\",\"input\":{\"a\":[1]},\"start\":20,"        \
  "\"end\":30,\"status\":\"failed\",\"error\":{\"code\":\"x\",\"message\":\"no 'luck'\"}},"        \
  "{\"seq\":3,\"step_id\":\"plain\",\"status\":\"failed\",\"error\":\"text\"}],"                   \
  "\"messages\":[],\"state\":{\"n\":9007199254740993,\"l\":[]}}"

static void guide_tables(void **state) {
  fixture *fx = *state;
  tm_session session = {.user_id = TM_S("ann"), .metadata = TM_S("{\"vip\":true}"), .created = 300};
  fixture_open(fx);
  tm_row row = row_of(fx, 0, BODY);
  row.created = 500;
  row.checkpoint = true;
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  c.head.created = 400;
  c.session = &session;
  fx->now = 300;
  assert_ok(fx, commit_one(fx, &c));
  sql_must_give(fx->file, "SELECT * FROM workflow_conversations",
                "019a0000-0000-7000-8000-000000000001|s1|returns|waiting_input|ask|"
                "{\"n\":9007199254740993,\"l\":[]}|400|500\n");
  sql_must_give(fx->file,
                "SELECT * FROM workflow_steps ORDER BY execution_start IS NULL,"
                "execution_start",
                "welcome|019a0000-0000-7000-8000-000000000001|agent_response|cs|NULL|"
                "\"h\xc3\xa9llo\"|10|20|completed|NULL|500\n"
                "look|019a0000-0000-7000-8000-000000000001|action|NULL|{\"a\":[1]}|NULL|20|30|"
                "failed|no 'luck'|500\n"
                "plain|019a0000-0000-7000-8000-000000000001|NULL|NULL|NULL|NULL|NULL|NULL|failed|"
                "text|500\n");
  sql_must_give(
      fx->file, "SELECT * FROM workflow_checkpoints",
      "1|019a0000-0000-7000-8000-000000000001|ask|{\"n\":9007199254740993,\"l\":[]}|500\n");
  sql_must_give(fx->file, "SELECT * FROM workflow_sessions", "s1|ann|{\"vip\":true}|500|300\n");
}

/* Sealed rows and rows with a delta show what they can; a body that is no JSON breaks nothing. */
static void guide_tables_of_opaque_rows(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  tm_row rows[] = {row_of(fx, 0, "{\"delta\":{\"set\":{}},\"steps\":[]}"), row_of(fx, 0, BODY),
                   row_of(fx, 0, "no JSON"), row_of(fx, 0, "")};
  rows[1].flags = 1;
  for (int i = 0; i < 4; i++) {
    rows[i].created = 1;
    rows[i].checkpoint = true;
    tm_commit c = commit_of(fx, nth(i).text, 0, &rows[i]);
    c.head.created = 2;
    c.head.status = (tm_conversation_status)(TM_COMPLETED + i);
    assert_ok(fx, commit_one(fx, &c));
  }
  tm_commit bare = commit_of(fx, nth(4).text, 0, NULL);
  bare.head.created = 2;
  assert_ok(fx, commit_one(fx, &bare));
  sql_must_give(fx->file,
                "SELECT substr(conversation_id,-1),status,state_data,updated_at FROM "
                "workflow_conversations ORDER BY 1",
                "0|completed|NULL|1\n1|failed|NULL|1\n2|expired|NULL|1\n3|cancelled|NULL|1\n"
                "4|waiting_input|NULL|NULL\n");
  sql_must_give(fx->file, "SELECT substr(conversation_id,-1),step_id,status FROM workflow_steps",
                "1|NULL|NULL\n");
  sql_must_give(fx->file, "SELECT checkpoint_id,state_snapshot,step_id FROM workflow_checkpoints",
                "1|NULL|NULL\n1|NULL|NULL\n1|NULL|NULL\n1|NULL|NULL\n");
}

static void views_have_the_names_one_likes(void **state) {
  fixture *fx = *state;
  fx->options.tables[0] = "My_Conversations";
  fixture_open(fx);
  const char *names = "SELECT name FROM sqlite_schema WHERE type='view' ORDER BY name";
  sql_must_give(fx->file, names,
                "My_Conversations\nworkflow_checkpoints\nworkflow_sessions\nworkflow_steps\n");
  fixture_close(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "CREATE VIEW mine AS SELECT count(*) FROM heads");
  sqlite3_close(db);
  fx->options.tables[0] = NULL;
  fx->options.tables[1] = "_s1";
  fixture_open(fx);
  sql_must_give(fx->file, names,
                "_s1\nmine\nworkflow_checkpoints\nworkflow_conversations\nworkflow_sessions\n");
  fixture_close(fx);
  file_bytes same = file_read(fx->file);
  fixture_open(fx); /* nothing to change: nothing is written */
  fixture_close(fx);
  file_must_be(fx->file, same);
  free(same.ptr);
}

static void a_view_that_was_changed_is_made_anew(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  fixture_close(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db,
          "DROP VIEW workflow_steps; UPDATE views SET sql='old' WHERE name='workflow_sessions'");
  sqlite3_close(db);
  fixture_open(fx);
  sql_must_give(fx->file, "SELECT count(*) FROM workflow_steps", "0\n");
  sql_must_give(fx->file, "SELECT count(*) FROM views WHERE sql='old'", "0\n");
}

static void names_that_cannot_be(void **state) {
  static const char *const bad[] = {
      "",
      "1a",
      "a b",
      "a\"b",
      "a;drop",
      "\xc3\xa9",
      "sqlite_x",
      "heads",
      "JOURNAL",
      "views",
      "Workflow_Steps",
      "heads_tenant",
      "a123456789012345678901234567890123456789012345678901234567890123"};
  fixture *fx = *state;
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    fx->options.tables[0] = "workflow_conversations";
    fx->options.tables[2] = bad[i];
    must_refuse(fx, TM_EINVAL, "store.table_name");
  }
  fx->options.tables[2] = "a12345678901234567890123456789012345678901234567890123456789012";
  fixture_open(fx);
  fixture_close(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "CREATE TABLE precious(x)");
  sqlite3_close(db);
  fx->options.tables[2] = "precious";
  must_refuse(fx, TM_EINVAL, "store.table_name");
  assert_non_null(strstr(fx->err.message, "precious"));
  fx->options.tables[2] = NULL;
  fixture_open(fx); /* the failed attempt changed nothing */
  sql_must_give(fx->file, "SELECT count(*) FROM precious", "0\n");
}

/* ---- cost ---- */

enum { MANY = 2000 };

static void make_many(fixture *fx) {
  static tm_commit commits[MANY];
  static tm_commit *items[MANY];
  tm_row row = row_of(fx, 0, "{}");
  for (int i = 0; i < MANY; i++) {
    commits[i] = commit_of(fx, nth(i).text, 0, &row);
    commits[i].head.wake_at = 1000000 + i;
    items[i] = &commits[i];
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, MANY, &fx->err));
}

static int64_t pages_written(const fixture *fx) {
  return (file_size(fx->file, "-wal") - 32) / (4096 + 24);
}

/* A turn touches the journal's last page and its head's page: with the journal's next page and its
 * parent not more than four, unless the head has grown out of its page. A deadline that moves may
 * cost the pages of one index. */
static void a_turn_touches_no_index(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  make_many(fx);
  char body[2000];
  memset(body, 'x', sizeof(body) - 1);
  body[sizeof(body) - 1] = '\0';
  int grown = 0;
  tm_row row = row_of(fx, 0, body);
  for (int i = 0; i < 40; i++) {
    int n = i * 997 % MANY;
    tm_commit c = commit_of(fx, nth(n).text, 1, &row);
    c.head.wake_at = 1000000 + n;
    c.head.recent[0] = (tm_recent_key){1, 2, TM_THIS_ROW};
    set_text(c.head.step, sizeof(c.head.step), "another");
    int64_t before = pages_written(fx);
    assert_ok(fx, commit_one(fx, &c));
    assert_in_range(pages_written(fx) - before, 2, 8);
    grown += pages_written(fx) - before > 4;
    c.expect_revision++;
    c.head.revision++;
    c.head.wake_at += 500;
    before = pages_written(fx);
    assert_ok(fx, commit_one(fx, &c));
    assert_in_range(pages_written(fx) - before, 2, 6);
  }
  assert_in_range(grown, 0, 3);
}

/* Lists and deadlines go through an index, never over the table. */
static void lists_use_indexes(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  sqlite3_stmt *st = NULL;
  sqlite3 *db = sql_open(fx->file);
  assert_int_equal(tm__sql_names(db), SQLITE_OK);
  tm_sql sorted[] = {
      TM_SQL_DUE,         TM_SQL_NEXT_DUE,     TM_SQL_EXPIRE_KEYS,  TM_SQL_ANSWER_KEY,
      TM_SQL_REVIVE,      TM_SQL_TOUCH,        TM_SQL_WAKE,         TM_SQL_MOVE,
      TM_SQL_ENDED,       TM_SQL_SESSION,      TM_SQL_SESSIONS_DUE, TM_SQL_JOIN_SESSION,
      TM_SQL_PUT_SESSION, TM_SQL_DROP_SESSION, TM_SQL_DROP_KEYS,    TM_SQL_PARENT,
      TM_SQL_DROP_ROW,    TM_SQL_REWRITE,      TM_SQL_NOTE,         TM_SQL_TENANTS_DUE,
      TM_SQL_TENANTS,     TM_SQL_MOVE_TENANT};
  for (size_t i = 0; i < sizeof(sorted) / sizeof(sorted[0]); i++) {
    sqlite3_stmt *ours = NULL;
    assert_ok(fx, tm__sqlite_statement(fx->writer, sorted[i], &ours, &fx->err));
    tm_buf sql = {0};
    tm__buf_printf(&sql, "EXPLAIN QUERY PLAN %s", sqlite3_sql(ours));
    assert_int_equal(sqlite3_prepare_v2(db, sql.ptr, -1, &st, NULL), SQLITE_OK);
    while (sqlite3_step(st) == SQLITE_ROW) {
      const char *plan = (const char *)sqlite3_column_text(st, 3);
      assert_null(strstr(plan, "SCAN"));
      assert_null(strstr(plan, "TEMP B-TREE"));
    }
    sqlite3_finalize(st);
    tm__buf_free(&sql);
  }
  sqlite3_close(db);
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

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* ---- lists that want few of many ---- */

#define CROWD 8300 /* more than two pieces look at */

static void make_crowd(fixture *fx) {
  static tm_commit commits[CROWD], *items[CROWD];
  for (int i = 0; i < CROWD; i++) {
    commits[i] = commit_of(fx, nth(i).text, 0, NULL);
    items[i] = &commits[i];
    if (i == 0 || i == 1 || i == 4200 || i == CROWD - 1)
      set_text(commits[i].head.flow, sizeof(commits[i].head.flow), "rare");
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, CROWD, &fx->err));
}

typedef struct rare {
  fixture *fx;
  int count;
  char last[TM_ID_SIZE];
} rare;

/* While the list is told of the newest, the oldest goes: it was not read with it. */
static tm_status see_rare(void *ud, const tm_head *head) {
  rare *r = ud;
  fixture *fx = r->fx;
  if (r->count++ == 0)
    assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(0).text), 1, true, &fx->err));
  memcpy(r->last, head->id, sizeof(r->last));
  return TM_OK;
}

static void a_list_of_few_does_not_read_all_at_once(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  make_crowd(fx);
  const tm_list_filter f = {
      .tenant = TM_S("default"), .flow = TM_S("rare"), .status = -1, .limit = 10};
  rare r = {.fx = fx};
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_rare, &r, &fx->err));
  assert_int_equal(r.count, 3);
  assert_string_equal(r.last, nth(1).text);
  tm_list_filter all = f;
  all.tenant = (tm_slice){0};
  all.limit = 2;
  r = (rare){.fx = fx, .count = 1};
  assert_ok(fx, fx->backend->list(fx->reader, &all, see_rare, &r, &fx->err));
  assert_int_equal(r.count, 3);
  assert_string_equal(r.last, nth(4200).text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(a_new_store),
      CASE(an_empty_file_is_a_new_store),
      CASE(places_that_are_none),
      CASE(a_link_is_followed),
      CASE(without_a_write_ahead_log),
      CASE(the_log_cannot_go_while_others_use_it),
      CASE(auto_vacuum_is_read_back),
      CASE(freed_pages_go_back),
      CASE(commits_are_synced),
      CASE(another_writer_is_waited_for),
      CASE(migrations_run_in_order),
      CASE(a_failing_migration_changes_nothing),
      CASE(an_older_store_is_brought_forward),
      CASE(guide_tables),
      CASE(guide_tables_of_opaque_rows),
      CASE(views_have_the_names_one_likes),
      CASE(a_view_that_was_changed_is_made_anew),
      CASE(names_that_cannot_be),
      CASE(a_turn_touches_no_index),
      CASE(lists_use_indexes),
      CASE(a_list_of_few_does_not_read_all_at_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
