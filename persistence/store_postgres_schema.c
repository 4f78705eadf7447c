/* store_postgres_schema.c - the tables, and how older ones become newer. Several hosts may come at
 * once: one of them makes the tables, the others see that it was done. */
#include <stdlib.h>

#include "persistence/store_postgres.h"

#define ATTEMPTS 40
#define PAUSE_MS 40

/* ---- tables ---- */

#define TEXT "text COLLATE \"C\" NOT NULL"
#define INT  "bigint NOT NULL"

/* A journal row is found by its conversation and revision and is never changed. A turn that only
 * waits again changes no column of a head that has an index, so that the new version of the head
 * finds room in the old one's page; what is indexed besides changes rarely. */
static const char version_1[] =
    "CREATE TABLE heads(id " TEXT " PRIMARY KEY,tenant " TEXT ",session " TEXT ",system " TEXT
    ",flow " TEXT ",version " TEXT ",step " TEXT ",claim " TEXT ",status " INT ",revision " INT
    ",tip " INT ",wake_at " INT ",created " INT ",ended " INT ",held_until " INT ",held_by " INT
    ",recent bytea NOT NULL) WITH (fillfactor=70);"
    "CREATE INDEX heads_tenant ON heads(tenant,id);"
    "CREATE INDEX heads_session ON heads(tenant,session,id);"
    "CREATE INDEX heads_system ON heads(tenant,system,id);"
    "CREATE INDEX heads_status ON heads(tenant,status,id);"
    "CREATE INDEX heads_wake ON heads(wake_at,id) WHERE wake_at>0;"
    "CREATE INDEX heads_ended ON heads(ended,id) WHERE ended>0;"
    "CREATE TABLE journal(conversation " TEXT ",revision " INT ",parent " INT ",base " INT
    ",kind " INT ",created " INT ",checkpoint boolean NOT NULL,flags " INT ",body bytea NOT NULL,"
    "PRIMARY KEY(conversation,revision));"
    "CREATE TABLE start_keys(tenant " TEXT ",key " INT ",conversation " TEXT ",body " INT
    ",answer " INT ",created " INT ",PRIMARY KEY(tenant,key));"
    "CREATE INDEX start_keys_created ON start_keys(created);"
    "CREATE INDEX start_keys_conversation ON start_keys(conversation);"
    "CREATE TABLE sessions(tenant " TEXT ",id " TEXT ",user_id bytea,metadata bytea,flags " INT
    ",created " INT ",look_at " INT ",ended " INT ",PRIMARY KEY(tenant,id)) WITH (fillfactor=80);"
    "CREATE INDEX sessions_tenant ON sessions(tenant,created,id);"
    "CREATE INDEX sessions_created ON sessions(created,id,tenant);"
    "CREATE INDEX sessions_open ON sessions(tenant) WHERE ended=0;"
    "CREATE INDEX sessions_look ON sessions(look_at) WHERE look_at>0;"
    "CREATE TABLE scripts(system " TEXT ",version " TEXT ",sources bytea NOT NULL,created " INT
    ",PRIMARY KEY(system,version));"
    "CREATE TABLE notes(name " TEXT " PRIMARY KEY,text bytea NOT NULL);"
    "CREATE TABLE tenants(tenant " TEXT " PRIMARY KEY,wake_at " INT ");"
    "CREATE INDEX tenants_wake ON tenants(wake_at,tenant) WHERE wake_at>0;"
    "CREATE TABLE purged(conversation " TEXT " PRIMARY KEY,created " INT ");"
    "CREATE TABLE writers(id bigint PRIMARY KEY,serial " INT ",touched " INT
    ") WITH (fillfactor=50);"
    "CREATE TABLE locks(name " TEXT " PRIMARY KEY);"
    "INSERT INTO locks VALUES('sessions');"
    "CREATE TABLE views(kind bigint PRIMARY KEY,name " TEXT ",sql " TEXT ");";

/* Events to be delivered: one of a conversation is due at a time. */
static const char version_2[] =
    "CREATE TABLE outbox(conversation " TEXT ",revision " INT ",idx " INT ",tenant " TEXT
    ",created " INT ",due_at " INT ",dead_at " INT ",attempts " INT
    ",note bytea NOT NULL,flags " INT
    ",body bytea NOT NULL,PRIMARY KEY(conversation,revision,idx)) WITH (fillfactor=80);"
    "CREATE INDEX outbox_due ON outbox(due_at,conversation) WHERE due_at>0;";

static const struct migration {
  int version; /* of the tables after it */
  const char *sql;
} migrations[] = {{1, version_1}, {2, version_2}};
#define MIGRATIONS (sizeof(migrations) / sizeof(migrations[0]))

/* The version that this program writes. */
static int newest(void) {
  return migrations[MIGRATIONS - 1].version;
}

/* ---- migrations ---- */

static tm_status count(const tm_store *s, PGconn *pg, const char *sql, int64_t *out,
                       tm_error *err) {
  PGresult *r = NULL;
  tm_pg_args a = {0};
  tm__pg_text(&a, s->schema);
  tm_status status = tm__pg_exec_args(s, pg, sql, &a, &r, "look at the tables", err);
  if (status == TM_OK) *out = tm__pg_get_int(r, 0, 0);
  PQclear(r);
  return status;
}

/* Who may not use a schema sees none of its tables: they would seem to be gone. */
static tm_status check_usage(const tm_store *s, PGconn *pg, tm_error *err) {
  int64_t barred = 0;
  tm_status status = count(s, pg,
                           "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname=$1 AND NOT "
                           "has_schema_privilege(oid,'USAGE')",
                           &barred, err);
  if (status != TM_OK || barred == 0) return status;
  return tm__fail(err, TM_EUNAVAILABLE, "store.permission",
                  "store %s: the role may not use the schema \"%s\": let an administrator run "
                  "ALTER SCHEMA \"%s\" OWNER TO the role, and make it the owner of all in it",
                  s->place, s->schema, s->schema);
}

/* *version 0: there are no tables. */
static tm_status read_version(const tm_store *s, PGconn *pg, int64_t *version, tm_error *err) {
  int64_t tables = 0;
  PGresult *r = NULL;
  *version = 0;
  tm_status status = check_usage(s, pg, err);
  if (status == TM_OK)
    status = count(s, pg,
                   "SELECT count(*) FROM pg_catalog.pg_tables WHERE schemaname=$1 AND "
                   "tablename='schema_version'",
                   &tables, err);
  if (status != TM_OK || tables == 0) return status;
  status =
      tm__pg_exec(s, pg, "SELECT max(version) FROM schema_version", &r, "read the version", err);
  if (status == TM_OK) *version = strtoll(PQgetvalue(r, 0, 0), NULL, 10);
  PQclear(r);
  return status;
}

static tm_status newer(const tm_store *s, int64_t version, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "store.newer",
                  "store %s, schema \"%s\" was written by a newer program (version %lld of its "
                  "tables, this one knows %d); it was left as it is: install the newer program",
                  s->place, s->schema, (long long)version, newest());
}

tm_status tm__pg_look(tm_store *s, PGconn *pg, tm_error *err) {
  int64_t version;
  bool as_is = s->opening == TM_STORE_AS_IS;
  tm_status status = read_version(s, pg, &version, err);
  if (status != TM_OK) return status;
  if (version > newest()) return newer(s, version, err);
  s->absent = version == 0;
  if (s->absent) return as_is ? TM_OK : tm__store_absent(s->place, err);
  if (as_is && version < newest()) return tm__store_older(s->place, version, newest(), err);
  return TM_OK;
}

/* CREATE SCHEMA needs its permission even where the schema is there, so that is looked at first. */
static void migration_sql(const tm_store *s, int64_t version, bool schema, tm_buf *b) {
  tm__buf_text(b, "BEGIN;");
  if (!schema) tm__buf_printf(b, "CREATE SCHEMA \"%s\";", s->schema);
  if (version == 0)
    tm__buf_text(b, "CREATE TABLE schema_version(version bigint PRIMARY KEY);"
                    "INSERT INTO schema_version VALUES(0);");
  else
    tm__buf_text(b, "SELECT version FROM schema_version FOR UPDATE;");
  for (size_t i = 0; i < MIGRATIONS; i++)
    if (migrations[i].version > version) tm__buf_text(b, migrations[i].sql);
  tm__buf_printf(b, "UPDATE schema_version SET version=%d;COMMIT", newest());
}

bool tm__pg_is_race(const char *state) {
  static const char *const states[] = {"23505", "40001", "40P01", "42P06",
                                       "42P07", "42710", "55P03", "XX000"};
  for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
    if (strcmp(state, states[i]) == 0) return true;
  return false;
}

static tm_status run_migration(const tm_store *s, PGconn *pg, int64_t version, char state[6],
                               tm_error *err) {
  int64_t schemas = 0;
  tm_buf sql = {0};
  state[0] = '\0';
  tm_status status =
      count(s, pg, "SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname=$1", &schemas, err);
  if (status != TM_OK) return status;
  migration_sql(s, version, schemas > 0, &sql);
  status = tm__buf_ok(&sql) ? tm__pg_exec_state(s, pg, sql.ptr, state, "make the tables", err)
                            : tm__fail_memory(err, "the store's tables");
  tm__buf_free(&sql);
  if (status != TM_OK) (void)tm__pg_exec(s, pg, "ROLLBACK", NULL, "roll back", NULL);
  return status;
}

static tm_status foreign(const tm_store *s, tm_error *err) {
  return tm__fail(err, TM_ECORRUPT, "store.foreign",
                  "store %s: the schema \"%s\" holds tables of another program; it was left as "
                  "it is: name another database",
                  s->place, s->schema);
}

/* Who comes second fails on what the first has made, or on its locks, and looks again. */
tm_status tm__pg_migrate(const tm_store *s, PGconn *pg, tm_error *err) {
  for (int i = 0;; i++) {
    int64_t version;
    char state[6];
    tm_status status = read_version(s, pg, &version, err);
    if (status != TM_OK || version == newest()) return status;
    if (version > newest()) return newer(s, version, err);
    status = run_migration(s, pg, version, state, err);
    if (status == TM_OK) continue;
    bool again = i < ATTEMPTS && tm__pg_is_race(state) && tm__pg_pause(s, PAUSE_MS);
    if (!again) return strcmp(state, "42P07") == 0 ? foreign(s, err) : status;
  }
}
