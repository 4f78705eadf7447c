/* A file that an older program made: version 1 of the tables, written here by SQL alone, as that
 * program wrote it. It is brought forward at open with all that is in it. */
#include <sys/file.h>

#include "file_bytes.h"

static const char version_1[] =
    "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA application_id=1416187244; PRAGMA journal_mode=WAL;"
    "CREATE TABLE heads(id TEXT NOT NULL PRIMARY KEY,tenant TEXT NOT NULL,session TEXT NOT NULL,"
    "system TEXT NOT NULL,flow TEXT NOT NULL,version TEXT NOT NULL,step TEXT NOT NULL,"
    "claim TEXT NOT NULL,status INTEGER NOT NULL,revision INTEGER NOT NULL,tip INTEGER NOT NULL,"
    "wake_at INTEGER NOT NULL,created INTEGER NOT NULL,recent BLOB NOT NULL) STRICT,WITHOUT ROWID;"
    "CREATE INDEX heads_tenant ON heads(tenant,id);"
    "CREATE INDEX heads_session ON heads(tenant,session,id);"
    "CREATE INDEX heads_system ON heads(tenant,system,id);"
    "CREATE INDEX heads_status ON heads(tenant,status,id);"
    "CREATE INDEX heads_wake ON heads(wake_at) WHERE wake_at>0;"
    "CREATE INDEX heads_claim ON heads(claim) WHERE claim<>'';"
    "CREATE TABLE journal(id INTEGER PRIMARY KEY,parent INTEGER NOT NULL,base INTEGER NOT NULL,"
    "conversation TEXT NOT NULL,revision INTEGER NOT NULL,kind INTEGER NOT NULL,"
    "created INTEGER NOT NULL,checkpoint INTEGER NOT NULL,flags INTEGER NOT NULL,"
    "body ANY NOT NULL) STRICT;"
    "CREATE TABLE start_keys(tenant TEXT NOT NULL,key INTEGER NOT NULL,conversation TEXT NOT NULL,"
    "body INTEGER NOT NULL,answer INTEGER NOT NULL,created INTEGER NOT NULL,"
    "PRIMARY KEY(tenant,key)) STRICT,WITHOUT ROWID;"
    "CREATE INDEX start_keys_created ON start_keys(created);"
    "CREATE INDEX start_keys_conversation ON start_keys(conversation);"
    "CREATE TABLE sessions(tenant TEXT NOT NULL,id TEXT NOT NULL,user_id TEXT,metadata TEXT,"
    "created INTEGER NOT NULL,PRIMARY KEY(tenant,id)) STRICT,WITHOUT ROWID;"
    "CREATE TABLE scripts(system TEXT NOT NULL,version TEXT NOT NULL,sources TEXT NOT NULL,"
    "created INTEGER NOT NULL,PRIMARY KEY(system,version)) STRICT,WITHOUT ROWID;"
    "CREATE TABLE views(kind INTEGER PRIMARY KEY,name TEXT NOT NULL,sql TEXT NOT NULL) STRICT;"
    "CREATE VIEW workflow_sessions AS SELECT s.id AS session_id, s.user_id FROM sessions s;"
    "INSERT INTO views VALUES(3,'workflow_sessions','CREATE VIEW workflow_sessions AS SELECT "
    "s.id AS session_id, s.user_id FROM sessions s');"
    "PRAGMA user_version=1;";

/* Conversation 1 waits, 2 has completed, 3 has failed without a row; each has a session. */
static const char content[] =
    "INSERT INTO journal VALUES(1,0,0,'" /* the ids are nth(1) and nth(2) */
    "019a0000-0000-7000-8000-000000000001',1,3,1000,1,0,'{\"state\":{}}'),"
    "(2,0,0,'019a0000-0000-7000-8000-000000000002',1,3,2000,0,0,'{\"state\":{\"a\":1}}'),"
    "(3,1,0,'019a0000-0000-7000-8000-000000000001',2,3,3000,0,0,'{\"delta\":{}}'),"
    "(4,2,0,'019a0000-0000-7000-8000-000000000002',2,3,4000,0,0,'{\"delta\":{}}');"
    "INSERT INTO heads VALUES"
    "('019a0000-0000-7000-8000-000000000001','default','s1','shop','returns','v','ask','',1,2,3,"
    "5000,900,x'0700000000000000080000000000000003000000000000"
    "00'),"
    "('019a0000-0000-7000-8000-000000000002','default','s1','shop','returns','v','','',7,2,4,0,"
    "1900,x''),"
    "('019a0000-0000-7000-8000-000000000003','other','s2','shop','returns','v','','',8,1,0,0,2500,"
    "x'');"
    "INSERT INTO start_keys VALUES('default',-1,'019a0000-0000-7000-8000-000000000002',9,2,"
    "1763802000000);"
    "INSERT INTO sessions "
    "VALUES('default','s1','ann','{\"x\":1}',800),('other','s2',NULL,NULL,700);"
    "INSERT INTO scripts VALUES('shop','v','sources',1);";

static void make_version_1(fixture *fx) {
  fixture_open(fx); /* the folders */
  fixture_close(fx);
  assert_int_equal(unlink(fx->file), 0);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, version_1);
  sql_run(db, content);
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static tm_status see_session(void *ud, const tm_session *s) {
  tm_session *copy = ud;
  *copy = *s;
  assert_true(s->user_id.ptr == NULL || tm__slice_is(s->user_id, "ann"));
  return TM_OK;
}

static tm_session session_of(fixture *fx, tm_slice tenant, tm_slice id) {
  tm_session s = {.flags = 99};
  assert_ok(fx, fx->backend->session(fx->reader, tenant, id, see_session, &s, &fx->err));
  return s;
}

static tm_status count_row(void *ud, const tm_row *row) {
  (void)row;
  ++*(int *)ud;
  return TM_OK;
}

static tm_status count_head(void *ud, const tm_head *head) {
  (void)head;
  ++*(int *)ud;
  return TM_OK;
}

static void version_1_comes_forward(void **state) {
  fixture *fx = *state;
  make_version_1(fx);
  fixture_open(fx);
  sql_must_give(fx->file, "PRAGMA user_version", "3\n");
  sql_must_give(fx->file, "PRAGMA integrity_check", "ok\n");
  tm_head head = head_of(fx, nth(1).text);
  assert_true(head.ended == 0 && head.tip == 3 && head.revision == 2 && head.wake_at == 5000);
  assert_true(head.recent[0].key == 7 && head.recent[0].row == 3);
  assert_int_equal(head_of(fx, nth(2).text).ended, 4000); /* when its last row was made */
  assert_int_equal(head_of(fx, nth(3).text).ended, 2500); /* without one: when it began */
  int rows = 0, ended = 0;
  const tm_store_backend *b = fx->backend;
  assert_ok(fx, b->chain(fx->reader, tm__slice(nth(1).text), 3, false, count_row, &rows, &fx->err));
  assert_ok(fx, b->ended(fx->reader, 5000, 10, count_head, &ended, &fx->err));
  assert_true(rows == 2 && ended == 2);
  tm_session s = session_of(fx, TM_S("default"), TM_S("s1"));
  assert_true(s.flags == 0 && s.created == 800 && s.ended == 0);
  assert_int_equal(s.look_at, 800); /* so that the host looks whether it is idle */
  assert_int_equal(session_of(fx, TM_S("other"), TM_S("s2")).created, 700);
  tm_start_key key;
  assert_ok(fx, b->start_key(fx->reader, TM_S("default"), UINT64_MAX, &key, &fx->err));
  assert_true(key.body == 9 && key.row == 2);
  tm_buf sources = {0};
  assert_ok(fx, b->script_get(fx->reader, TM_S("shop"), TM_S("v"), &sources, &fx->err));
  assert_string_equal(sources.ptr, "sources");
  tm__buf_free(&sources);
  sql_must_give(fx->file, "SELECT session_id,user_id,last_activity FROM workflow_sessions",
                "s1|ann|4000\ns2|NULL|700\n");
}

/* It is counted among the open ones, goes on, is purged and swept like any other. */
static void what_was_brought_forward_goes_on(void **state) {
  fixture *fx = *state;
  const tm_session session = {.created = fx->now};
  bool more = true;
  make_version_1(fx);
  fixture_open(fx);
  tm_commit c = commit_of(fx, nth(8).text, 0, NULL);
  set_text(c.head.session, sizeof(c.head.session), "s3");
  c.session = &session;
  c.sessions_max = 2;
  assert_int_equal(commit_one(fx, &c), TM_ELIMIT);
  c.sessions_max = 3;
  c.tenant_sessions_max = 1;
  assert_int_equal(commit_one(fx, &c), TM_ELIMIT);
  c.tenant_sessions_max = 2;
  assert_ok(fx, commit_one(fx, &c));
  (void)turn(fx, nth(1).text, 2, 3, "{\"delta\":{}}");
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(2).text), 2, true, &fx->err));
  while (more)
    assert_ok(fx, fx->backend->sweep(fx->writer, 1, &more, &fx->err));
  sql_must_give(fx->file, "SELECT count(*) FROM journal WHERE conversation LIKE '%02'", "0\n");
  fixture_close(fx);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 3);
}

static void a_version_1_in_use_waits(void **state) {
  fixture *fx = *state;
  make_version_1(fx);
  file_bytes same = file_read(fx->file);
  char lock[256];
  (void)snprintf(lock, sizeof(lock), "%s.lock", fx->file);
  FILE *other = fopen(lock, "r+");
  assert_non_null(other);
  assert_int_equal(flock(fileno(other), LOCK_SH), 0); /* the older program serves it */
  tm_store *s = NULL;
  assert_int_equal(fx->backend->open(&s, &fx->options, &fx->err), TM_EUNAVAILABLE);
  assert_non_null(strstr(fx->err.message, "stop that one first"));
  file_must_be(fx->file, same);
  (void)fclose(other);
  free(same.ptr);
  fixture_open(fx);
}

/* Who only looks does not bring it forward, also while another process uses it. */
static void a_version_1_is_looked_at(void **state) {
  fixture *fx = *state;
  tm_store *s = NULL;
  make_version_1(fx);
  fx->options.opening = TM_STORE_AS_IS;
  assert_int_equal(fx->backend->open(&s, &fx->options, &fx->err), TM_EUNSUPPORTED);
  assert_string_equal(fx->err.code, "store.older");
  sql_must_give(fx->file, "PRAGMA user_version", "1\n");
  sql_must_give(fx->file, "SELECT count(*) FROM sqlite_schema WHERE name='heads_ended'", "0\n");
  sql_must_give(fx->file, "SELECT count(*) FROM views", "1\n");
}

/* What is wrong in an older file is told, and it is left as it is. */
static void a_broken_version_1_stays(void **state) {
  fixture *fx = *state;
  tm_store *s = NULL;
  make_version_1(fx);
  sqlite3 *db = sql_open(fx->file);
  sql_run(db, "DROP TABLE sessions");
  assert_int_equal(sqlite3_close(db), SQLITE_OK);
  assert_int_equal(fx->backend->open(&s, &fx->options, &fx->err), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.damaged");
  sql_must_give(fx->file, "PRAGMA user_version", "1\n");
  sql_must_give(fx->file, "SELECT count(*) FROM heads", "3\n");
  sql_must_give(fx->file, "SELECT count(*) FROM sqlite_schema WHERE name='heads_ended'", "0\n");
}

static int set_up(void **state) {
  static fixture fx;
  fixture_make(&fx, &tm__store_sqlite);
  fx.options.auto_vacuum = true;
  *state = &fx;
  return 0;
}

static int tear_down(void **state) {
  fixture_remove(*state);
  return 0;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(version_1_comes_forward),  CASE(what_was_brought_forward_goes_on),
      CASE(a_version_1_in_use_waits), CASE(a_version_1_is_looked_at),
      CASE(a_broken_version_1_stays),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
