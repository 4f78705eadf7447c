/* store_sqlite_schema.c - the tables, how older files become newer ones, and the guide's tables as
 * views for people with a SQL client. */
#include "persistence/store_sqlite.h"

/* ---- tables ---- */

/* The journal has no index but its own order. A head's indexes have only columns that a turn rarely
 * changes; heads_wake and heads_claim hold only the heads that have one. */
static const char version_1[] =
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
    "CREATE TABLE views(kind INTEGER PRIMARY KEY,name TEXT NOT NULL,sql TEXT NOT NULL) STRICT;";

#define COUNT(tenant, by)                                                                          \
  "INSERT INTO session_counts VALUES(0,''," by "),(1," tenant "," by ") "                          \
  "ON CONFLICT DO UPDATE SET open=open+excluded.open;"
#define COUNT_SESSIONS                                                                             \
  "CREATE TRIGGER sessions_made AFTER INSERT ON sessions WHEN new.ended=0 BEGIN " COUNT(           \
      "new.tenant",                                                                                \
      "1") "END;"                                                                                  \
           "CREATE TRIGGER sessions_gone AFTER DELETE ON sessions WHEN old.ended=0 BEGIN " COUNT(  \
               "old.tenant",                                                                       \
               "-1") "END;"                                                                        \
                     "CREATE TRIGGER sessions_over AFTER UPDATE OF ended ON sessions "             \
                     "WHEN old.ended=0 AND new.ended<>0 BEGIN " COUNT(                             \
                         "new.tenant",                                                             \
                         "-1") "END;"                                                              \
                               "CREATE TRIGGER sessions_again AFTER UPDATE OF ended ON sessions "  \
                               "WHEN old.ended<>0 AND new.ended=0 BEGIN " COUNT("new.tenant",      \
                                                                                "1") "END;"

/* How many sessions are open is counted where they are written (scope 0: in all, 1: of the tenant),
 * since counting a million of them takes too long. What is purged leaves its newest row in `purged`
 * until a sweep has removed the rows along their parents. */
static const char version_2[] =
    "ALTER TABLE heads ADD COLUMN ended INTEGER NOT NULL DEFAULT 0;"
    "UPDATE heads SET ended=max(1,ifnull((SELECT created FROM journal WHERE id=tip),created)) "
    "WHERE status>=7;"
    "CREATE INDEX heads_ended ON heads(ended) WHERE ended>0;"
    "ALTER TABLE sessions RENAME TO sessions_1;"
    "CREATE TABLE sessions(tenant TEXT NOT NULL,id TEXT NOT NULL,user_id ANY,metadata ANY,"
    "flags INTEGER NOT NULL,created INTEGER NOT NULL,look_at INTEGER NOT NULL,"
    "ended INTEGER NOT NULL,PRIMARY KEY(tenant,id)) STRICT,WITHOUT ROWID;"
    "INSERT INTO sessions SELECT tenant,id,user_id,metadata,0,created,max(1,created),0 "
    "FROM sessions_1;"
    "DROP TABLE sessions_1;"
    "CREATE INDEX sessions_open ON sessions(tenant,created,id) WHERE ended=0;"
    "CREATE INDEX sessions_ended ON sessions(tenant,created,id) WHERE ended>0;"
    "CREATE INDEX sessions_look ON sessions(look_at) WHERE look_at>0;"
    "CREATE TABLE session_counts(scope INTEGER NOT NULL,tenant TEXT NOT NULL,"
    "open INTEGER NOT NULL,PRIMARY KEY(scope,tenant)) STRICT,WITHOUT ROWID;"
    "INSERT INTO session_counts SELECT 0,'',count(*) FROM sessions WHERE ended=0;"
    "INSERT INTO session_counts SELECT 1,tenant,count(*) FROM sessions WHERE ended=0 "
    "GROUP BY tenant;" COUNT_SESSIONS
    "CREATE TABLE purged(tip INTEGER PRIMARY KEY,conversation TEXT NOT NULL) STRICT;"
    "CREATE TABLE notes(name TEXT NOT NULL PRIMARY KEY,text ANY NOT NULL) STRICT,WITHOUT ROWID;"
    "CREATE TABLE tenants(tenant TEXT NOT NULL PRIMARY KEY,wake_at INTEGER NOT NULL) "
    "STRICT,WITHOUT ROWID;"
    "CREATE INDEX tenants_wake ON tenants(wake_at) WHERE wake_at>0;";

/* Events to be delivered: one of a conversation is due at a time. */
static const char version_3[] =
    "CREATE TABLE outbox(conversation TEXT NOT NULL,revision INTEGER NOT NULL,idx INTEGER NOT NULL,"
    "tenant TEXT NOT NULL,created INTEGER NOT NULL,due_at INTEGER NOT NULL,"
    "dead_at INTEGER NOT NULL,attempts INTEGER NOT NULL,note TEXT NOT NULL,flags INTEGER NOT NULL,"
    "body ANY NOT NULL,PRIMARY KEY(conversation,revision,idx)) STRICT,WITHOUT ROWID;"
    "CREATE INDEX outbox_due ON outbox(due_at) WHERE due_at>0;";

const tm_sqlite_migration tm__sqlite_migrations[] = {
    {1, version_1}, {2, version_2}, {3, version_3}};
const size_t tm__sqlite_migration_count =
    sizeof(tm__sqlite_migrations) / sizeof(tm__sqlite_migrations[0]);

int tm__sqlite_newest(void) {
  return tm__sqlite_migrations[tm__sqlite_migration_count - 1].version;
}

/* ---- migrations ---- */

tm_status tm__sqlite_newer(tm_error *err, const char *path, int64_t version) {
  return tm__fail(err, TM_ECORRUPT, "store.newer",
                  "store %s was written by a newer program (version %lld of its tables, this one "
                  "knows %d); it was left as it is: install the newer program",
                  path, (long long)version, tm__sqlite_newest());
}

static int drop_views(sqlite3 *db) {
  sqlite3_stmt *st = NULL;
  tm_buf sql = {0};
  int rc = sqlite3_prepare_v2(db, "SELECT name FROM views", -1, &st, NULL);
  while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
    tm__buf_printf(&sql, "DROP VIEW IF EXISTS \"%s\";", (const char *)sqlite3_column_text(st, 0));
    rc = SQLITE_OK;
  }
  if (rc == SQLITE_DONE) rc = SQLITE_OK;
  (void)sqlite3_finalize(st);
  tm__buf_text(&sql, "DELETE FROM views;");
  if (rc == SQLITE_OK)
    rc = tm__buf_ok(&sql) ? sqlite3_exec(db, sql.ptr, NULL, NULL, NULL) : SQLITE_NOMEM;
  tm__buf_free(&sql);
  return rc;
}

/* Views that name what a migration changes would stop it; tm__sqlite_views makes them anew. */
static int migrate_from(sqlite3 *db, int64_t version, const tm_sqlite_migration *list,
                        size_t count) {
  int64_t views = 0;
  int rc = tm__sqlite_int(db, "SELECT count(*) FROM sqlite_schema WHERE name='views'", &views);
  if (rc == SQLITE_OK && views > 0) rc = drop_views(db);
  for (size_t i = 0; rc == SQLITE_OK && i < count; i++)
    if (list[i].version > version) rc = sqlite3_exec(db, list[i].sql, NULL, NULL, NULL);
  if (rc != SQLITE_OK) return rc;
  char pragma[64];
  (void)sqlite3_snprintf(sizeof(pragma), pragma, "PRAGMA user_version=%d", list[count - 1].version);
  return sqlite3_exec(db, pragma, NULL, NULL, NULL);
}

tm_status tm__sqlite_migrate(sqlite3 *db, const char *path, const tm_sqlite_migration *list,
                             size_t count, tm_error *err) {
  int64_t version = 0;
  tm_status status = TM_OK;
  int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  if (rc == SQLITE_OK) rc = tm__sqlite_int(db, "PRAGMA user_version", &version);
  if (rc == SQLITE_OK && version > list[count - 1].version)
    status = tm__sqlite_newer(err, path, version);
  else if (rc == SQLITE_OK && version < list[count - 1].version)
    rc = migrate_from(db, version, list, count);
  if (rc == SQLITE_OK && status == TM_OK) rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
  if (rc != SQLITE_OK)
    status = tm__sqlite_fail(err, path, db, rc, "bring its tables to this version");
  if (sqlite3_get_autocommit(db) == 0) (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
  return status;
}

/* ---- views ---- */

/* SQL reads better in its own lines. A body that is compressed or sealed, or no JSON, shows as
 * NULL; the output of a step that only spoke stands among the messages of its row. */
/* clang-format off */
#define PLAIN "j.flags=0 AND json_valid(j.body)"
#define STATE "CASE WHEN " PLAIN " THEN j.body->'$.state' END"

static const char conversations_select[] =
  TM_VIEW_CONVERSATION STATE " AS state_data,"
  " h.created AS created_at, j.created AS updated_at "
  "FROM heads h LEFT JOIN journal j ON j.id=h.tip";

static const char steps_select[] =
  "SELECT s.value->>'$.step_id' AS step_id, j.conversation AS conversation_id,"
  " s.value->>'$.type' AS step_type, s.value->>'$.agent' AS agent_id,"
  " nullif(s.value->'$.input','null') AS input_data,"
  " ifnull(nullif(s.value->'$.output','null'),"
  "  (SELECT m.value->'$.text' FROM json_each(j.body,'$.messages') m"
  "   WHERE m.value->>'$.seq'=s.value->>'$.reply')) AS output_data,"
  " s.value->>'$.start' AS execution_start, s.value->>'$.end' AS execution_end,"
  " s.value->>'$.status' AS status,"
  " CASE json_type(s.value,'$.error') WHEN 'object' THEN s.value->>'$.error.message'"
  "  ELSE s.value->>'$.error' END AS error_message,"
  " j.created AS created_at "
  "FROM journal j LEFT JOIN json_each(CASE WHEN " PLAIN " THEN j.body ELSE '{}' END,'$.steps') s "
  "WHERE s.key IS NOT NULL OR j.flags<>0";

static const char checkpoints_select[] =
  "SELECT j.revision AS checkpoint_id, j.conversation AS conversation_id,"
  " CASE WHEN " PLAIN " THEN j.body->>'$.step' END AS step_id,"
  " " STATE " AS state_snapshot, j.created AS created_at "
  "FROM journal j WHERE j.checkpoint<>0";

static const char sessions_select[] =
  "SELECT s.id AS session_id, CASE s.flags WHEN 0 THEN s.user_id END AS user_id,"
  " CASE s.flags WHEN 0 THEN s.metadata END AS metadata,"
  " ifnull((SELECT max(j.created) FROM heads h JOIN journal j ON j.id=h.tip"
  "  WHERE h.tenant=s.tenant AND h.session=s.id),s.created) AS last_activity,"
  " s.created AS created_at "
  "FROM sessions s";
/* clang-format on */

static const char *const selects[TM_VIEWS] = {conversations_select, steps_select,
                                              checkpoints_select, sessions_select};

tm_status tm__sqlite_view_names(tm_store *s, const char *const *names, tm_error *err) {
  static const char *const taken[] = {
      "heads",   "journal",      "start_keys", "sessions",  "scripts",  "session_counts",
      "purged",  "notes",        "tenants",    "outbox",    "outbox_*", "views",
      "heads_*", "start_keys_*", "sessions_*", "tenants_*", "sqlite_*", NULL};
  return tm__view_names(s->views, names, taken, err);
}

/* How many of the views are there as they should be. */
static int count_views(sqlite3 *db, const tm_store *s, size_t *same) {
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(db,
                              "SELECT count(*) FROM views v JOIN sqlite_schema m ON m.name=v.name "
                              "AND m.type='view' WHERE v.kind=?1 AND v.sql=?2",
                              -1, &st, NULL);
  *same = 0;
  for (size_t i = 0; rc == SQLITE_OK && i < TM_VIEWS; i++) {
    tm_buf sql = {0};
    tm__view_sql(&sql, s->views[i], selects[i]);
    rc = tm__buf_ok(&sql) ? sqlite3_bind_int(st, 1, (int)i) : SQLITE_NOMEM;
    if (rc == SQLITE_OK) rc = tm__sqlite_bind(st, 2, tm__buf_view(&sql));
    if (rc == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
      *same += (size_t)sqlite3_column_int(st, 0);
    if (rc == SQLITE_OK) rc = sqlite3_reset(st);
    tm__buf_free(&sql);
  }
  int end = sqlite3_finalize(st);
  return rc != SQLITE_OK ? rc : end;
}

static int make_view(sqlite3 *db, const tm_store *s, size_t kind) {
  sqlite3_stmt *st = NULL;
  tm_buf sql = {0};
  tm__view_sql(&sql, s->views[kind], selects[kind]);
  int rc = tm__buf_ok(&sql) ? sqlite3_exec(db, sql.ptr, NULL, NULL, NULL) : SQLITE_NOMEM;
  if (rc == SQLITE_OK)
    rc = sqlite3_prepare_v2(db, "INSERT INTO views VALUES(?1,?2,?3)", -1, &st, NULL);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int(st, 1, (int)kind);
  if (rc == SQLITE_OK) rc = tm__sqlite_bind_text(st, 2, s->views[kind]);
  if (rc == SQLITE_OK) rc = tm__sqlite_bind(st, 3, tm__buf_view(&sql));
  if (rc == SQLITE_OK) (void)sqlite3_step(st);
  int end = sqlite3_finalize(st);
  tm__buf_free(&sql);
  return rc != SQLITE_OK ? rc : end;
}

tm_status tm__sqlite_views(sqlite3 *db, const tm_store *s, tm_error *err) {
  size_t same = 0;
  tm_status status = TM_OK;
  int rc = count_views(db, s, &same);
  if (rc == SQLITE_OK && same == TM_VIEWS) return TM_OK;
  if (rc == SQLITE_OK) rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  if (rc == SQLITE_OK) rc = drop_views(db);
  for (size_t i = 0; rc == SQLITE_OK && i < TM_VIEWS; i++) {
    rc = make_view(db, s, i);
    if (rc != SQLITE_ERROR) continue;
    status = tm__fail(err, TM_EINVAL, "store.table_name",
                      "store %s: the view \"%s\" cannot be made: %s; choose another name", s->path,
                      s->views[i], sqlite3_errmsg(db));
  }
  if (rc == SQLITE_OK) rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
  if (rc != SQLITE_OK && status == TM_OK)
    status = tm__sqlite_fail(err, s->path, db, rc, "make the views");
  if (sqlite3_get_autocommit(db) == 0) (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
  return status;
}
