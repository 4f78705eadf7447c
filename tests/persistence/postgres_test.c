/* What is special to PostgreSQL: its tables and who may use them, its views, its errors in our
 * words, and several hosts at once. */
#include "damaged_event.h"
#include "damaged_head.h"
#include "damaged_names.h"
#include "damaged_session.h"
#include "fixture.h"

#include <libpq-fe.h>
#include <pthread.h>

static int set_up(void **state) {
  fixture *fx = malloc(sizeof(*fx));
  if (fx == NULL) return -1;
  fixture_make(fx, &tm__store_postgres);
  *state = fx;
  return 0;
}

static int set_up_open(void **state) {
  int failed = set_up(state);
  if (failed == 0) fixture_open(*state);
  return failed;
}

static int tear_down(void **state) {
  fixture_remove(*state);
  free(*state);
  return 0;
}

/* ---- SQL beside the store ---- */

static PGconn *beside(const fixture *fx) {
  PGconn *pg = PQconnectdb(fx->url);
  if (PQstatus(pg) != CONNECTION_OK) fail_msg("%s", PQerrorMessage(pg));
  PQclear(PQexec(pg, "SET search_path TO tidemill"));
  return pg;
}

/* What the last statement of `sql` gives, as text; static. */
static const char *ask(PGconn *pg, const char *sql) {
  static char out[512];
  PGresult *r = PQexec(pg, sql);
  ExecStatusType status = PQresultStatus(r);
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
    fail_msg("%s: %s", sql, PQerrorMessage(pg));
  bool row = status == PGRES_TUPLES_OK && PQntuples(r) > 0;
  (void)snprintf(out, sizeof(out), "%s",
                 !row                   ? ""
                 : PQgetisnull(r, 0, 0) ? "NULL"
                                        : PQgetvalue(r, 0, 0));
  PQclear(r);
  return out;
}

static const char *run(const fixture *fx, const char *sql) {
  PGconn *pg = beside(fx);
  const char *out = ask(pg, sql);
  PQfinish(pg);
  return out;
}

/* The fixture's URL with other user and password, or another database. */
static void other_url(const fixture *fx, const char *user, const char *database, char *out,
                      size_t size) {
  const char *at = strchr(fx->url, '@'), *slash = strrchr(fx->url, '/');
  (void)snprintf(out, size, "postgresql://%s%.*s/%s", user, (int)(slash - at), at,
                 database != NULL ? database : slash + 1);
}

static void assert_refused(fixture *fx, const char *location, const char *code) {
  fx->options.location = location;
  tm_store *s = NULL;
  assert_int_not_equal(fx->backend->open(&s, &fx->options, &fx->err), TM_OK);
  assert_null(s);
  if (strcmp(fx->err.code, code) != 0) print_error("%s\n", fx->err.message);
  assert_string_equal(fx->err.code, code);
  fx->options.location = fx->url;
}

/* ---- tables ---- */

static void tables_are_made_once(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, "{}");
  assert_string_equal(run(fx, "SELECT version FROM schema_version"), "2");
  char made[64];
  (void)snprintf(made, sizeof(made), "%s", run(fx, "SELECT max(oid) FROM pg_class"));
  fixture_close(fx);
  fixture_open(fx);
  assert_string_equal(run(fx, "SELECT max(oid) FROM pg_class"), made);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
}

static void newer_tables_are_left_alone(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, "{}");
  (void)run(fx, "UPDATE schema_version SET version=99");
  fixture_close(fx);
  assert_refused(fx, fx->url, "store.newer");
  assert_string_equal(run(fx, "SELECT count(*) FROM heads"), "1");
  assert_string_equal(run(fx, "SELECT version FROM schema_version"), "99");
}

static void foreign_tables_are_left_alone(void **state) {
  fixture *fx = *state;
  (void)run(fx, "CREATE SCHEMA tidemill");
  (void)run(fx, "CREATE TABLE heads(x int)");
  assert_refused(fx, fx->url, "store.foreign");
  assert_string_equal(run(fx, "SELECT count(*) FROM pg_tables WHERE schemaname='tidemill'"), "1");
}

static void a_table_that_is_gone_is_damage(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  (void)run(fx, "DROP TABLE journal CASCADE");
  assert_refused(fx, fx->url, "store.damaged");
  tm_commit c = commit_of(fx, nth(1).text, 0, NULL);
  assert_int_equal(commit_one(fx, &c), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.damaged");
}

typedef struct opener {
  fixture *fx;
  tm_status status;
  tm_error err;
} opener;

static void *open_store(void *ud) {
  opener *o = ud;
  tm_store *s = NULL;
  o->status = o->fx->backend->open(&s, &o->fx->options, &o->err);
  o->fx->backend->close(s);
  return NULL;
}

static void many_hosts_make_the_tables_at_once(void **state) {
  fixture *fx = *state;
  enum { HOSTS = 6 };
  opener openers[HOSTS];
  pthread_t threads[HOSTS];
  for (int i = 0; i < HOSTS; i++) {
    openers[i] = (opener){.fx = fx};
    assert_int_equal(pthread_create(&threads[i], NULL, open_store, &openers[i]), 0);
  }
  for (int i = 0; i < HOSTS; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    if (openers[i].status != TM_OK) print_error("%s\n", openers[i].err.message);
    assert_int_equal(openers[i].status, TM_OK);
  }
  assert_string_equal(run(fx, "SELECT count(*) FROM pg_views WHERE schemaname='tidemill'"), "4");
}

/* ---- tenants ---- */

static void keep_and_close(fixture *fx, const char *tenant, int n) {
  fx->options.tenant = tenant;
  fixture_open(fx);
  turn(fx, nth(n).text, 0, 0, "{}");
  fixture_close(fx);
}

static void tenants_have_schemas_of_their_own(void **state) {
  fixture *fx = *state;
  char a[65], b[65];
  memset(a, 'x', 64);
  a[64] = '\0';
  memcpy(b, a, sizeof(b));
  b[63] = 'y'; /* the same for as long as an identifier can be */
  static const char *const names[] = {"acme", "ACME", "a.b-c", "pg_catalog"};
  for (int i = 0; i < 4; i++)
    keep_and_close(fx, names[i], i);
  keep_and_close(fx, a, 10);
  keep_and_close(fx, b, 11);
  fx->options.tenant = b;
  fixture_open(fx);
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(10).text), &head, NULL),
                   TM_ENOTFOUND);
  assert_int_equal(head_of(fx, nth(11).text).revision, 1);
  fixture_close(fx);
  fx->options.tenant = "x\";DROP SCHEMA tidemill;--";
  assert_refused(fx, fx->url, "store.tenant");
  fx->options.tenant = NULL;
  assert_string_equal(run(fx, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'tidemill%'"),
                      "6");
}

/* ---- views ---- */

static void views_show_what_is_plain(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(
      fx, 0,
      "{\"step\":\"ask\",\"state\":{\"n\":9007199254740993},\"steps\":[{\"seq\":1,\"step_id\":"
      "\"ask\",\"type\":"
      "\"user_input\",\"agent\":\"bot\",\"input\":null,\"output\":{\"a\":1},\"start\":5,\"end\":6,"
      "\"status\":\"completed\"},{\"step_id\":\"say\",\"output\":null,\"reply\":3,"
      "\"error\":{\"message\":\"bad\"}}],\"messages\":[{\"seq\":3,\"text\":\"hello\"}]}");
  row.checkpoint = true;
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  tm_session session = {.user_id = TM_S("ann"), .metadata = TM_S("{\"k\":1}"), .created = fx->now};
  c.session = &session;
  assert_ok(fx, commit_one(fx, &c));
  PGconn *pg = beside(fx);
  assert_string_equal(ask(pg, "SELECT state_data FROM workflow_conversations"),
                      "{\"n\":9007199254740993}");
  assert_string_equal(ask(pg, "SELECT status||' '||current_step FROM workflow_conversations"),
                      "waiting_input ask");
  assert_string_equal(ask(pg, "SELECT output_data FROM workflow_steps WHERE step_id='ask'"),
                      "{\"a\":1}");
  assert_string_equal(
      ask(pg, "SELECT execution_end-execution_start FROM workflow_steps WHERE step_id='ask'"), "1");
  assert_string_equal(ask(pg, "SELECT input_data FROM workflow_steps WHERE step_id='ask'"), "NULL");
  assert_string_equal(ask(pg, "SELECT output_data FROM workflow_steps WHERE step_id='say'"),
                      "\"hello\"");
  assert_string_equal(ask(pg, "SELECT error_message FROM workflow_steps WHERE step_id='say'"),
                      "bad");
  assert_string_equal(ask(pg, "SELECT checkpoint_id||step_id FROM workflow_checkpoints"), "1ask");
  assert_string_equal(ask(pg, "SELECT user_id||metadata FROM workflow_sessions"), "ann{\"k\":1}");
  PQfinish(pg);
}

/* A view that fails on one row shows nobody anything. */
static void views_hide_what_is_not(void **state) {
  fixture *fx = *state;
  static const char *const bodies[] = {"", "no JSON {", "{\"state\":{\"nul\":\"a\\u0000b\"}}",
                                       "\xff\xfe"};
  for (int i = 0; i < 4; i++) {
    tm_row row = row_of(fx, 0, bodies[i]);
    row.checkpoint = true;
    tm_commit c = commit_of(fx, nth(i).text, 0, &row);
    assert_ok(fx, commit_one(fx, &c));
  }
  tm_row sealed = row_of(fx, 0, "{\"state\":{}}");
  sealed.flags = 2;
  tm_commit c = commit_of(fx, nth(9).text, 0, &sealed);
  const tm_session session = {.user_id = TM_S("\xff\0"), .metadata = TM_S("\xfe"), .flags = 2};
  c.session = &session;
  assert_ok(fx, commit_one(fx, &c));
  PGconn *pg = beside(fx);
  assert_string_equal(
      ask(pg, "SELECT count(*) FROM workflow_conversations WHERE state_data IS NULL"), "5");
  assert_string_equal(
      ask(pg, "SELECT count(*) FROM workflow_checkpoints WHERE state_snapshot IS NULL"), "4");
  assert_string_equal(ask(pg, "SELECT count(*) FROM workflow_steps"), "1"); /* the sealed row */
  assert_string_equal(ask(pg, "SELECT user_id FROM workflow_sessions"), "NULL");
  PQfinish(pg);
}

static void views_are_renamed(void **state) {
  fixture *fx = *state;
  fixture_open(fx);
  fixture_close(fx);
  fx->options.tables[0] = "Chats";
  fixture_open(fx);
  assert_string_equal(run(fx, "SELECT count(*) FROM \"Chats\""), "0");
  assert_string_equal(run(fx, "SELECT to_regclass('workflow_conversations') IS NULL"), "t");
  fixture_close(fx);
  (void)run(fx, "CREATE TABLE mine(x int)");
  static const char *const bad[] = {"mine", "heads",      "a b",          "x\"y",          "",
                                    "9a",   "heads_wake", "journal_pkey", "workflow_steps"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    fx->options.tables[0] = bad[i];
    assert_refused(fx, fx->url, "store.table_name");
  }
  assert_string_equal(run(fx, "SELECT count(*) FROM mine"), "0");
}

/* ---- connecting ---- */

static void passwords_are_never_told(void **state) {
  fixture *fx = *state;
  static const char *const locations[] = {
      "postgresql://tidemill:hunter2@127.0.0.1:1/x",
      "postgresql://tidemill:hunter2@127.0.0.1:hunter2/x",
      "postgresql://tidemill:hunter2@hunter2@127.0.0.1:1/x",
      "postgresql://tidemill:/hunter2@127.0.0.1:1/x",
      "postgresql://tidemill:?hunter2=@127.0.0.1:1/x",
      "postgresql://tidemill@127.0.0.1:1/x?pasword=hunter2",
      "host=127.0.0.1 port=1 password='hunter2",
      "host=127.0.0.1 hunter2",
      "hunter2",
      "",
  };
  for (size_t i = 0; i < sizeof(locations) / sizeof(locations[0]); i++) {
    tm_store *s = NULL;
    fx->options.location = locations[i];
    assert_int_not_equal(fx->backend->open(&s, &fx->options, &fx->err), TM_OK);
    if (strstr(fx->err.message, "hunter2") != NULL) fail_msg("%s", fx->err.message);
    assert_true(strcmp(fx->err.code, i == 0 ? "store.away" : "store.location") == 0 || i == 4);
  }
  char url[512];
  other_url(fx, "tidemill:hunter2", NULL, url, sizeof(url));
  assert_refused(fx, url, "store.login");
  assert_null(strstr(fx->err.message, "hunter2"));
  other_url(fx, "hunter2:hunter2", NULL, url, sizeof(url)); /* the server repeats the name */
  assert_refused(fx, url, "store.login");
  assert_null(strstr(fx->err.message, "hunter2"));
}

static void errors_say_what_to_do(void **state) {
  fixture *fx = *state;
  char url[512];
  other_url(fx, "tidemill:secret", "nowhere", url, sizeof(url));
  assert_refused(fx, url, "store.no_database");
  char role[64], sql[256];
  (void)snprintf(role, sizeof(role), "weak_%d", (int)getpid());
  (void)snprintf(sql, sizeof(sql), "CREATE ROLE %s LOGIN PASSWORD 'secret' CONNECTION LIMIT 2",
                 role);
  (void)run(fx, sql);
  (void)snprintf(sql, sizeof(sql), "%s:secret", role);
  other_url(fx, sql, NULL, url, sizeof(url));
  assert_refused(fx, url, "store.permission");
  PGconn *one = PQconnectdb(url), *two = PQconnectdb(url);
  assert_refused(fx, url, "store.connections");
  PQfinish(one);
  PQfinish(two);
  (void)snprintf(sql, sizeof(sql), "CREATE SCHEMA tidemill AUTHORIZATION %s", role);
  (void)run(fx, sql);
  fx->options.location = url;
  assert_ok(fx, fx->backend->open(&fx->store, &fx->options, &fx->err)); /* as the advice says */
  fx->backend->close(fx->store);
  fx->store = NULL;
  (void)snprintf(sql, sizeof(sql), "DROP OWNED BY %s CASCADE;DROP ROLE %s", role, role);
  (void)run(fx, sql);
}

/* The administrator made the schema, or all of it, and forgot the role. */
static void a_schema_that_is_anothers(void **state) {
  fixture *fx = *state;
  char url[512], role[64], sql[256];
  (void)snprintf(role, sizeof(role), "poor_%d", (int)getpid());
  (void)snprintf(sql, sizeof(sql), "CREATE ROLE %s LOGIN PASSWORD 'secret';CREATE SCHEMA tidemill",
                 role);
  (void)run(fx, sql);
  (void)snprintf(sql, sizeof(sql), "%s:secret", role);
  other_url(fx, sql, NULL, url, sizeof(url));
  assert_refused(fx, url, "store.permission");
  assert_non_null(strstr(fx->err.message, "ALTER SCHEMA \"tidemill\" OWNER TO"));
  fixture_open(fx); /* now it has tables */
  fixture_close(fx);
  assert_refused(fx, url, "store.permission");
  fx->options.opening = TM_STORE_AS_IS; /* as the doctor looks */
  assert_refused(fx, url, "store.permission");
  fx->options.opening = TM_STORE_MAKE;
  (void)snprintf(sql, sizeof(sql), "GRANT USAGE ON SCHEMA tidemill TO %s", role);
  (void)run(fx, sql);
  assert_refused(fx, url, "store.permission");
  assert_non_null(strstr(fx->err.message, "own"));
  (void)snprintf(sql, sizeof(sql), "DROP OWNED BY %s CASCADE;DROP ROLE %s", role, role);
  (void)run(fx, sql);
}

/* The processes that serve those who last read a head. */
#define READERS                                                                                    \
  "SELECT string_agg(pid::text,',' ORDER BY pid) FROM pg_stat_activity WHERE "                     \
  "datname=current_database() AND pid<>pg_backend_pid() AND "                                      \
  "query LIKE '%FROM heads WHERE id=%'"

static void a_server_that_takes_no_writes(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  PGconn *pg = beside(fx);
  char sql[256];
  (void)snprintf(sql, sizeof(sql), "ALTER DATABASE %s SET default_transaction_read_only=on",
                 PQdb(pg));
  (void)ask(pg, sql);
  fx->backend->disconnect(fx->writer);
  assert_int_equal(fx->backend->connect(&fx->writer, fx->store, TM_STORE_WRITER, &fx->err), TM_OK);
  tm_commit c = commit_of(fx, nth(1).text, 1, NULL);
  assert_int_equal(commit_one(fx, &c), TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.read_only");
  assert_int_equal(fx->backend->probe(fx->writer, &fx->err), TM_EUNAVAILABLE);
  fx->backend->disconnect(fx->reader);
  assert_int_equal(fx->backend->connect(&fx->reader, fx->store, TM_STORE_READER, &fx->err), TM_OK);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  char reader[64];
  (void)snprintf(reader, sizeof(reader), "%s", ask(pg, READERS));
  (void)ask(pg, "SET default_transaction_read_only=off");
  (void)snprintf(sql, sizeof(sql), "ALTER DATABASE %s RESET default_transaction_read_only",
                 PQdb(pg));
  (void)ask(pg, sql);
  PQfinish(pg);
  assert_ok(fx, commit_one(fx, &c)); /* by a new session: the old one takes no writes for ever */
  assert_int_equal(head_of(fx, nth(1).text).revision, 2);
  assert_string_not_equal(run(fx, READERS), reader); /* nor does anybody go on reading there */
}

static void locks_are_waited_for_and_no_longer(void **state) {
  fixture *fx = *state;
  fx->options.timeout_ms = 200;
  fixture_open(fx);
  turn(fx, nth(1).text, 0, 0, "{}");
  PGconn *pg = beside(fx);
  (void)ask(pg, "BEGIN");
  (void)ask(pg, "LOCK TABLE heads IN ACCESS EXCLUSIVE MODE");
  tm_head head;
  tm_commit c = commit_of(fx, nth(1).text, 1, NULL);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, &fx->err),
                   TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.busy");
  assert_int_equal(commit_one(fx, &c), TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.busy");
  (void)ask(pg, "ROLLBACK");
  PQfinish(pg);
  assert_ok(fx, commit_one(fx, &c));
}

/* ---- others come between ---- */

static void serialization_failures_are_tried_again(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  PGconn *pg = beside(fx);
  (void)ask(pg, "CREATE SEQUENCE tries");
  (void)ask(pg, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE n bigint "
                ":= nextval('tidemill.tries'); "
                "BEGIN IF n<=4 THEN RAISE EXCEPTION 'not now' USING ERRCODE="
                "(ARRAY['40001','40P01','23505','40001'])[n]; END IF; RETURN NEW; END $$");
  (void)ask(
      pg, "CREATE TRIGGER refuse BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION refuse()");
  turn(fx, nth(1).text, 1, 1, "{}");
  assert_string_equal(ask(pg, "SELECT last_value FROM tries"), "5");
  assert_string_equal(ask(pg, "SELECT count(*) FROM journal"), "2");
  (void)ask(pg, "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION 'never' USING ERRCODE='40001'; END $$");
  tm_row row = row_of(fx, 2, "{}");
  tm_commit c = commit_of(fx, nth(1).text, 2, &row);
  assert_int_equal(commit_one(fx, &c), TM_EUNAVAILABLE); /* at some time it ends */
  assert_string_equal(fx->err.code, "store.busy");
  (void)ask(pg, "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION 'of no known kind'; END $$");
  assert_int_equal(commit_one(fx, &c), TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.server");
  (void)ask(pg, "DROP FUNCTION refuse() CASCADE");
  PQfinish(pg);
  assert_ok(fx, commit_one(fx, &c));
}

typedef struct committer {
  fixture *fx;
  tm_commit *items[2];
  tm_status status;
} committer;

static void *commit_both(void *ud) {
  committer *m = ud;
  m->status = m->fx->backend->commit(m->fx->writer, m->items, 2, &m->fx->err);
  return NULL;
}

static void wait_for(PGconn *pg, const char *sql) {
  while (strcmp(ask(pg, sql), "t") != 0)
    (void)usleep(2000);
}

static void deadlocks_are_tried_again(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  turn(fx, nth(2).text, 0, 0, "{}");
  PGconn *pg = beside(fx), *watch = beside(fx);
  (void)ask(pg, "SET deadlock_timeout='60s'"); /* ours is the one that is ended */
  (void)ask(pg, "BEGIN");
  (void)ask(pg, "UPDATE heads SET held_until=0 WHERE id='019a0000-0000-7000-8000-000000000002'");
  tm_commit a = commit_of(fx, nth(1).text, 1, NULL), b = commit_of(fx, nth(2).text, 1, NULL);
  committer m = {.fx = fx, .items = {&b, &a}};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, commit_both, &m), 0);
  wait_for(watch, "SELECT count(*)=1 FROM pg_locks WHERE NOT granted");
  (void)ask(pg, "UPDATE heads SET held_until=0 WHERE id='019a0000-0000-7000-8000-000000000001'");
  (void)ask(pg, "COMMIT");
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(m.status, TM_OK);
  assert_int_equal(a.status, TM_OK);
  assert_int_equal(b.status, TM_OK);
  assert_int_equal(head_of(fx, nth(1).text).revision, 2);
  PQfinish(pg);
  PQfinish(watch);
}

/* Many starts at once, each on a connection of its own. */
typedef struct starter {
  fixture *fx;
  int n;
  uint64_t key;
  int64_t most;
  tm_status status;
} starter;

static void *start(void *ud) {
  starter *s = ud;
  tm_store_conn *c = NULL;
  tm_commit item = commit_of(s->fx, nth(s->n).text, 0, NULL);
  (void)snprintf(item.head.session, sizeof(item.head.session), "s%d", s->n);
  tm_session session = {.created = 1};
  item.start_key = s->key;
  item.session = &session;
  item.sessions_max = s->most;
  tm_commit *items[] = {&item};
  s->status = s->fx->backend->connect(&c, s->fx->store, TM_STORE_WRITER, NULL);
  if (s->status == TM_OK) s->status = s->fx->backend->commit(c, items, 1, NULL);
  if (s->status == TM_OK) s->status = item.status;
  s->fx->backend->disconnect(c);
  return NULL;
}

static void start_at_once(starter *starters, int count, int *ok, tm_status otherwise) {
  pthread_t threads[8];
  *ok = 0;
  for (int i = 0; i < count; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, start, &starters[i]), 0);
  for (int i = 0; i < count; i++) {
    assert_int_equal(pthread_join(threads[i], NULL), 0);
    if (starters[i].status == TM_OK)
      (*ok)++;
    else
      assert_int_equal(starters[i].status, otherwise);
  }
}

static void one_key_starts_one_conversation(void **state) {
  fixture *fx = *state;
  for (int round = 0; round < 5; round++) {
    starter starters[8];
    int ok;
    for (int i = 0; i < 8; i++)
      starters[i] = (starter){fx, round * 10 + i, (uint64_t)round + 7, 0, TM_OK};
    start_at_once(starters, 8, &ok, TM_ECONFLICT);
    assert_int_equal(ok, 1);
  }
  assert_string_equal(run(fx, "SELECT count(*) FROM heads"), "5");
}

static void sessions_are_counted_across_hosts(void **state) {
  fixture *fx = *state;
  starter starters[8];
  int ok;
  for (int i = 0; i < 8; i++)
    starters[i] = (starter){fx, i, 0, 3, TM_OK};
  start_at_once(starters, 8, &ok, TM_ELIMIT);
  assert_int_equal(ok, 3);
  assert_string_equal(run(fx, "SELECT count(*) FROM sessions"), "3");
}

/* ---- deadlines of several hosts ---- */

static tm_status collect(void *ud, const tm_head *head) {
  char *out = ud;
  size_t len = strlen(out);
  out[len] = head->id[35];
  out[len + 1] = '\0';
  return TM_OK;
}

static void assert_due(fixture *fx, tm_store_conn *c, int64_t hold_ms, size_t limit,
                       const char *ids) {
  char seen[32] = "";
  assert_ok(fx, fx->backend->due(c, fx->now, hold_ms, limit, collect, seen, &fx->err));
  assert_string_equal(seen, ids);
}

static void deadlines_are_shared_out(void **state) {
  fixture *fx = *state;
  for (int i = 1; i <= 5; i++) {
    tm_commit c = commit_of(fx, nth(i).text, 0, NULL);
    c.head.wake_at = fx->now - 10 + i;
    assert_ok(fx, commit_one(fx, &c));
  }
  tm_store *other = NULL;
  tm_store_conn *b = NULL;
  assert_ok(fx, fx->backend->open(&other, &fx->options, &fx->err));
  assert_ok(fx, fx->backend->connect(&b, other, TM_STORE_WRITER, &fx->err));
  assert_due(fx, fx->writer, 1000, 2, "12");
  assert_due(fx, b, 1000, 2, "34");
  assert_due(fx, fx->writer, 1000, 9, "125"); /* its own, and what nobody has */
  assert_due(fx, b, 1000, 9, "34");
  assert_due(fx, b, 0, 9, "12345"); /* a look, nothing is taken */
  assert_int_equal(head_of(fx, nth(1).text).wake_at, fx->now - 9);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  fx->now += 1001;
  assert_due(fx, b, 1000, 9, "12345"); /* the other one died */
  tm_commit c = commit_of(fx, nth(1).text, 1, NULL);
  c.head.wake_at = fx->now;
  assert_ok(fx, commit_one(fx, &c));
  assert_due(fx, fx->writer, 1000, 9, "1"); /* another deadline is anybody's */
  fx->backend->disconnect(b);
  fx->backend->close(other);
}

static void a_head_that_is_written_is_skipped(void **state) {
  fixture *fx = *state;
  for (int i = 1; i <= 2; i++) {
    tm_commit c = commit_of(fx, nth(i).text, 0, NULL);
    c.head.wake_at = i;
    assert_ok(fx, commit_one(fx, &c));
  }
  PGconn *pg = beside(fx);
  (void)ask(pg, "BEGIN");
  (void)ask(pg, "SELECT 1 FROM heads WHERE wake_at=1 FOR UPDATE");
  assert_due(fx, fx->writer, 1000, 9, "2"); /* at once, whoever has it */
  (void)ask(pg, "ROLLBACK");
  PQfinish(pg);
  assert_due(fx, fx->writer, 1000, 9, "12");
}

/* ---- what a doctor sees ---- */

typedef struct findings {
  int count[3];
  char text[1024];
} findings;

static void on_finding(void *ud, tm_finding level, const char *text) {
  findings *f = ud;
  f->count[level]++;
  (void)snprintf(f->text + strlen(f->text), sizeof(f->text) - strlen(f->text), "%s\n", text);
}

static findings inspect(fixture *fx, bool deep) {
  findings f = {0};
  assert_ok(fx, fx->backend->inspect(fx->reader, deep, on_finding, &f, &fx->err));
  return f;
}

static void a_sound_store_has_no_findings(void **state) {
  fixture *fx = *state;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{}");
  const tm_session session = {.tenant = TM_S("default"), .id = TM_S("s1"), .created = 1};
  (void)turn(fx, nth(1).text, 1, tip, "{}");
  assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &session, &fx->err));
  findings f = inspect(fx, true);
  assert_string_equal(f.text, "");
}

static void damage_is_found(void **state) {
  fixture *fx = *state;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{}");
  (void)turn(fx, nth(1).text, 1, tip, "{}");
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  (void)run(fx, "DELETE FROM journal WHERE conversation LIKE '%1' AND revision=1");
  (void)run(fx, "DELETE FROM journal WHERE conversation LIKE '%2'");
  findings f = inspect(fx, false);
  assert_int_equal(f.count[TM_FINDING_ERROR], 0);
  f = inspect(fx, true);
  assert_int_equal(f.count[TM_FINDING_ERROR], 2);
  assert_non_null(strstr(f.text, nth(1).text));
  assert_non_null(strstr(f.text, nth(2).text));
}

static void unsafe_settings_are_found(void **state) {
  fixture *fx = *state;
  char sql[256];
  const char *name = strrchr(fx->url, '/') + 1;
  (void)snprintf(sql, sizeof(sql), "ALTER DATABASE %s SET synchronous_commit=off", name);
  (void)run(fx, sql);
  fixture_open(fx);
  assert_string_equal(run(fx, "SHOW synchronous_commit"), "off");
  findings f = inspect(fx, false);
  assert_int_equal(f.count[TM_FINDING_WARNING], 1); /* for others: ours is on */
  assert_int_equal(f.count[TM_FINDING_ERROR], 0);
  assert_non_null(strstr(f.text, "synchronous_commit"));
  fixture_close(fx);
  (void)snprintf(sql, sizeof(sql), "ALTER DATABASE %s SET default_transaction_read_only=on", name);
  (void)run(fx, sql);
  assert_ok(fx, fx->backend->open(&fx->store, &fx->options, &fx->err));
  assert_ok(fx, fx->backend->connect(&fx->reader, fx->store, TM_STORE_READER, &fx->err));
  f = inspect(fx, false);
  assert_int_equal(f.count[TM_FINDING_ERROR], 1);
}

static void quoting_is_ours(void **state) {
  fixture *fx = *state;
  char sql[256];
  const char *name = strrchr(fx->url, '/') + 1;
  (void)snprintf(sql, sizeof(sql), "ALTER DATABASE %s SET standard_conforming_strings=off", name);
  (void)run(fx, sql);
  fixture_open(fx);
  assert_string_equal(run(fx, "SHOW standard_conforming_strings"), "off");
  (void)turn(fx, nth(1).text, 0, 0, "{\"a\":\"\\\\\"}");
  assert_string_equal(run(fx, "SELECT count(*) FROM heads"), "1");
}

/* ---- odds and ends ---- */

static void writers_leave_nothing_behind(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  assert_string_equal(run(fx, "SELECT count(*) FROM writers"), "1");
  (void)run(fx, "DELETE FROM writers"); /* as a sweep does after a month */
  turn(fx, nth(1).text, 1, 1, "{}");
  assert_string_equal(run(fx, "SELECT count(*) FROM writers"), "1");
  fx->backend->disconnect(fx->writer);
  fx->writer = NULL;
  assert_string_equal(run(fx, "SELECT count(*) FROM writers"), "0");
  (void)run(fx, "INSERT INTO writers VALUES(5,0,0)");
  bool more = true;
  assert_ok(fx, fx->backend->connect(&fx->writer, fx->store, TM_STORE_WRITER, &fx->err));
  assert_ok(fx, fx->backend->sweep(fx->writer, 10, &more, &fx->err));
  assert_string_equal(run(fx, "SELECT count(*) FROM writers WHERE id=5"), "0");
}

/* A turn that only waits again makes no new entry in any index. */
static void turns_are_heap_only_updates(void **state) {
  fixture *fx = *state;
  for (int i = 0; i < 20; i++)
    (void)turn(fx, nth(1).text, i, i, "{}");
  PGconn *pg = beside(fx);
  wait_for(pg, "SELECT n_tup_upd>=19 FROM pg_stat_user_tables WHERE relname='heads'");
  assert_string_equal(
      ask(pg, "SELECT n_tup_upd-n_tup_hot_upd FROM pg_stat_user_tables WHERE relname='heads'"),
      "0");
  PQfinish(pg);
}

static void texts_that_postgres_cannot_keep(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit bad = commit_of(fx, nth(1).text, 0, &row), good = commit_of(fx, nth(2).text, 0, &row);
  set_text(bad.head.step, sizeof(bad.head.step), "\xff");
  tm_commit *items[] = {&bad, &good};
  assert_ok(fx, fx->backend->commit(fx->writer, items, 2, &fx->err));
  assert_int_equal(bad.status, TM_EINVAL);
  assert_int_equal(good.status, TM_OK);
  const tm_session session = {.tenant = TM_S("default"), .id = TM_S("a\0b")};
  assert_int_equal(fx->backend->session_put(fx->writer, NULL, &session, &fx->err), TM_EINVAL);
  assert_string_equal(fx->err.code, "store.refused");
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, TM_S("a\0b"), &head, NULL), TM_ENOTFOUND);
}

/* ---- events ---- */

typedef struct settler {
  fixture *fx;
  tm_outgoing event;
  tm_status status;
  tm_error err;
  bool done; /* atomic */
} settler;

static tm_status take_event(void *ud, const tm_outgoing *event) {
  ((settler *)ud)->event = *event;
  return TM_OK;
}

static void *settle_event(void *arg) {
  settler *s = arg;
  const tm_store_backend *b = s->fx->backend;
  s->status = b->outbox_settle(s->fx->writer, &s->event, TM_OUTCOME_DELIVERED, 77, &s->err);
  __atomic_store_n(&s->done, true, __ATOMIC_RELEASE);
  return NULL;
}

/* A commit sees an event before its own, which is delivered before the commit is visible: were they
 * not to wait for each other, its event would never be due. */
static void a_delivery_waits_for_a_commit(void **state) {
  fixture *fx = *state;
  settler s = {.fx = fx};
  pthread_t thread;
  fx->options.timeout_ms = 20000;
  fixture_open(fx);
  tm_row row = row_of(fx, 0, "{}");
  const tm_outgoing event = {.created = 5, .body = TM_S("x")};
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  c.events = &event;
  c.event_count = 1;
  assert_ok(fx, commit_one(fx, &c));
  assert_ok(fx, fx->backend->outbox_take(fx->writer, 10, 1000, 1, take_event, &s, &fx->err));
  PGconn *pg = beside(fx), *watch = beside(fx);
  (void)ask(pg, "BEGIN");
  (void)ask(pg, "UPDATE heads SET revision=2 WHERE id='019a0000-0000-7000-8000-000000000001'");
  (void)ask(pg, "INSERT INTO outbox SELECT conversation,2,0,tenant,6,0,0,0,note,flags,body "
                "FROM outbox");
  assert_int_equal(pthread_create(&thread, NULL, settle_event, &s), 0);
  while (!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE) &&
         strcmp(ask(watch, "SELECT count(*) FROM pg_locks WHERE NOT granted"), "0") == 0) {
  }
  (void)ask(pg, "COMMIT");
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_ok(fx, s.status);
  int64_t next = 0;
  assert_ok(fx, fx->backend->outbox_next(fx->reader, &next, &fx->err));
  assert_int_equal(next, 77);
  PQfinish(pg);
  PQfinish(watch);
}

static void stretch_tenant(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE outbox SET tenant=repeat('x',70) WHERE conversation='%s' AND idx=0", id);
  (void)run(ud, sql);
}

static void one_event_stops_nobody(void **state) {
  damaged_event(*state, stretch_tenant, *state);
}

static void harm_status(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE heads SET status=99 WHERE id='%s'", id);
  (void)run(ud, sql);
}

static void harm_session(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE heads SET session=repeat('x',200) WHERE id='%s'", id);
  (void)run(ud, sql);
}

static void one_head_stops_nobody(void **state) {
  damaged_head(*state, harm_status, *state);
}

static void nor_does_another(void **state) {
  damaged_head(*state, harm_session, *state);
}

/* Not even the id can be read: what can be of it names it, and the walk goes on behind it. */
static void nor_does_one_without_a_name(void **state) {
  fixture *fx = *state;
  seen_heads s = {0};
  for (int n = 1; n <= 3; n++)
    begin_nth(fx, n, true);
  (void)run(fx, "UPDATE heads SET id=id||'-and-more' WHERE id LIKE '%002'");
  (void)run(fx, "UPDATE heads SET id='' WHERE id LIKE '%001'");
  assert_ok(fx, fx->backend->due(fx->writer, fx->now, 9, 1, see_a_head, &s, &fx->err));
  assert_int_equal(s.count, 2);
  assert_string_equal(s.items[0].id, nth(2).text);
  assert_true(tm__head_is_damaged(&s.items[0]));
  assert_string_equal(s.items[1].id, nth(3).text);
}

static void harm_flags(void *ud) {
  (void)run(ud, "UPDATE sessions SET flags=-1 WHERE id='s1'");
}

static void harm_created(void *ud) {
  (void)run(ud, "UPDATE sessions SET created=-5 WHERE id='s1'");
}

static void stretch_session(void *ud) {
  (void)run(ud, "UPDATE sessions SET id='s1'||repeat('x',200) WHERE id='s1'");
}

static void one_session_stops_nobody(void **state) {
  damaged_session(*state, harm_flags, *state, true, true);
}

static void nor_does_another_session(void **state) {
  damaged_session(*state, harm_created, *state, true, true);
}

static void nor_does_a_session_without_a_name(void **state) {
  nameless_session(*state, stretch_session, *state);
}

static void stretch_event(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE outbox SET conversation=repeat('x',70) WHERE conversation='%s' AND idx=0",
                 id);
  (void)run(ud, sql);
}

static void nor_does_an_event_without_a_name(void **state) {
  nameless_event(*state, stretch_event, *state);
}

static void count_beyond(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE outbox SET attempts=4294967296 WHERE conversation='%s' AND idx=0", id);
  (void)run(ud, sql);
}

static void nor_does_one_that_was_tried_too_often(void **state) {
  nameless_event(*state, count_beyond, *state);
}

static void harm_tenant(void *ud) {
  (void)run(ud, "UPDATE tenants SET tenant=repeat('A',70) WHERE tenant='acme'");
}

static void nor_does_a_tenant_without_a_name(void **state) {
  nameless_tenant(*state, harm_tenant, *state);
}

static void harm_mark(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE purged SET conversation=repeat('x',70) WHERE conversation='%s'", id);
  (void)run(ud, sql);
}

static void nor_does_a_mark_without_one(void **state) {
  nameless_mark(*state, harm_mark, *state);
  assert_string_equal(run(*state, "SELECT count(*) FROM journal"), "1");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define OPEN(f) cmocka_unit_test_setup_teardown(f, set_up_open, tear_down)

int main(void) {
  const struct CMUnitTest cases[] = {
      CASE(tables_are_made_once),
      CASE(newer_tables_are_left_alone),
      CASE(foreign_tables_are_left_alone),
      CASE(a_table_that_is_gone_is_damage),
      CASE(many_hosts_make_the_tables_at_once),
      CASE(tenants_have_schemas_of_their_own),
      OPEN(views_show_what_is_plain),
      OPEN(one_event_stops_nobody),
      OPEN(one_head_stops_nobody),
      OPEN(nor_does_another),
      OPEN(nor_does_one_without_a_name),
      OPEN(one_session_stops_nobody),
      OPEN(nor_does_an_event_without_a_name),
      OPEN(nor_does_one_that_was_tried_too_often),
      OPEN(nor_does_a_tenant_without_a_name),
      OPEN(nor_does_a_mark_without_one),
      OPEN(nor_does_another_session),
      OPEN(nor_does_a_session_without_a_name),
      OPEN(views_hide_what_is_not),
      CASE(views_are_renamed),
      CASE(passwords_are_never_told),
      CASE(errors_say_what_to_do),
      CASE(a_schema_that_is_anothers),
      OPEN(a_server_that_takes_no_writes),
      CASE(locks_are_waited_for_and_no_longer),
      OPEN(serialization_failures_are_tried_again),
      OPEN(deadlocks_are_tried_again),
      OPEN(one_key_starts_one_conversation),
      OPEN(sessions_are_counted_across_hosts),
      OPEN(deadlines_are_shared_out),
      OPEN(a_head_that_is_written_is_skipped),
      OPEN(a_sound_store_has_no_findings),
      OPEN(damage_is_found),
      CASE(unsafe_settings_are_found),
      CASE(quoting_is_ours),
      OPEN(writers_leave_nothing_behind),
      OPEN(turns_are_heap_only_updates),
      OPEN(texts_that_postgres_cannot_keep),
      CASE(a_delivery_waits_for_a_commit),
  };
  return cmocka_run_group_tests_name("postgres", cases, NULL, NULL);
}
