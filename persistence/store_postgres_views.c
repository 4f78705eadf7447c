/* store_postgres_views.c - the guide's tables as views for people with a SQL client. */
#include <string.h>

#include "persistence/store_postgres.h"

#define ATTEMPTS 40
#define PAUSE_MS 40

/* SQL reads better in its own lines. A body that is compressed or sealed shows as NULL, and so does
 * one with an escaped NUL, which PostgreSQL's JSON cannot hold. */
/* clang-format off */
#define PLAIN \
  "j.flags=0 AND substring(j.body from 1 for 1)='{'::bytea" \
  " AND position('\\\\u0000'::bytea in j.body)=0"
#define JSON  "CASE WHEN " PLAIN " THEN convert_from(j.body,'UTF8')::json END"
#define ARRAY_OF(x) "CASE json_typeof(" x ") WHEN 'array' THEN " x " END"

static const char conversations_select[] =
  TM_VIEW_CONVERSATION "(" JSON ")->'state' AS state_data,"
  " h.created AS created_at, j.created AS updated_at "
  "FROM heads h LEFT JOIN journal j ON j.conversation=h.id AND j.revision=h.tip";

static const char steps_select[] =
  "SELECT s.value->>'step_id' AS step_id, j.conversation AS conversation_id,"
  " s.value->>'type' AS step_type, s.value->>'agent' AS agent_id,"
  " CASE WHEN json_typeof(s.value->'input')<>'null' THEN s.value->'input' END AS input_data,"
  " CASE WHEN json_typeof(s.value->'output')<>'null' THEN s.value->'output' ELSE"
  "  (SELECT m.value->'text' FROM json_array_elements(" ARRAY_OF("b.body->'messages'") ") m"
  "   WHERE m.value->>'seq'=s.value->>'reply' LIMIT 1) END AS output_data,"
  " (s.value->>'start')::bigint AS execution_start, (s.value->>'end')::bigint AS execution_end,"
  " s.value->>'status' AS status,"
  " CASE json_typeof(s.value->'error') WHEN 'object' THEN s.value->'error'->>'message'"
  "  ELSE s.value->>'error' END AS error_message,"
  " j.created AS created_at "
  "FROM journal j CROSS JOIN LATERAL (SELECT " JSON " AS body) b"
  " LEFT JOIN LATERAL json_array_elements(" ARRAY_OF("b.body->'steps'") ") s ON true "
  "WHERE s.value IS NOT NULL OR j.flags<>0";

static const char checkpoints_select[] =
  "SELECT j.revision AS checkpoint_id, j.conversation AS conversation_id,"
  " (" JSON ")->>'step' AS step_id, (" JSON ")->'state' AS state_snapshot,"
  " j.created AS created_at "
  "FROM journal j WHERE j.checkpoint";

static const char sessions_select[] =
  "SELECT s.id AS session_id,"
  " CASE s.flags WHEN 0 THEN convert_from(s.user_id,'UTF8') END AS user_id,"
  " CASE s.flags WHEN 0 THEN convert_from(s.metadata,'UTF8') END AS metadata,"
  " coalesce((SELECT max(j.created) FROM heads h JOIN journal j ON j.conversation=h.id AND"
  "  j.revision=h.tip WHERE h.tenant=s.tenant AND h.session=s.id),s.created) AS last_activity,"
  " s.created AS created_at "
  "FROM sessions s";
/* clang-format on */

static const char *const selects[TM_VIEWS] = {conversations_select, steps_select,
                                              checkpoints_select, sessions_select};

tm_status tm__pg_view_names(tm_store *s, const char *const *names, tm_error *err) {
  static const char *const taken[] = {
      "heads",   "journal",      "start_keys", "sessions",  "scripts",        "notes",  "tenants",
      "purged",  "writers",      "locks",      "views",     "schema_version", "outbox", "outbox_*",
      "heads_*", "start_keys_*", "sessions_*", "tenants_*", "*_pkey",         NULL};
  return tm__view_names(s->views, names, taken, err);
}

/* ---- making ---- */

/* Is view `kind` there as it should be? */
static tm_status is_made(const tm_store *s, PGconn *pg, size_t kind, bool *made, tm_error *err) {
  tm_buf sql = {0};
  tm_pg_args a = {0};
  PGresult *r = NULL;
  tm__view_sql(&sql, s->views[kind], selects[kind]);
  if (!tm__buf_ok(&sql)) return tm__fail_memory(err, "the store's views");
  tm__pg_int(&a, (int64_t)kind);
  tm__pg_bytes(&a, tm__buf_view(&sql));
  tm__pg_text(&a, s->schema);
  tm_status status = tm__pg_exec_args(
      s, pg,
      "SELECT count(*) FROM views v JOIN pg_catalog.pg_views p ON p.viewname=v.name AND "
      "p.schemaname=$3 WHERE v.kind=$1 AND v.sql=$2",
      &a, &r, "look at the views", err);
  if (status == TM_OK) *made = tm__pg_get_int(r, 0, 0) == 1;
  PQclear(r);
  tm__buf_free(&sql);
  return status;
}

static tm_status old_views(const tm_store *s, PGconn *pg, tm_buf *sql, tm_error *err) {
  PGresult *r = NULL;
  tm_status status = tm__pg_exec(s, pg, "SELECT name FROM views", &r, "look at the views", err);
  for (int i = 0; status == TM_OK && i < PQntuples(r); i++)
    tm__buf_printf(sql, "DROP VIEW IF EXISTS \"%s\";", PQgetvalue(r, i, 0));
  PQclear(r);
  return status;
}

/* All of them anew, one host at a time. */
static tm_status make(const tm_store *s, PGconn *pg, char state[6], tm_error *err) {
  tm_buf sql = {0};
  tm__buf_text(&sql, "BEGIN;SELECT 1 FROM schema_version FOR UPDATE;");
  state[0] = '\0';
  tm_status status = old_views(s, pg, &sql, err);
  tm__buf_text(&sql, "DELETE FROM views;");
  for (size_t i = 0; i < TM_VIEWS; i++) {
    tm__view_sql(&sql, s->views[i], selects[i]);
    tm__buf_printf(&sql, ";INSERT INTO views VALUES(%zu,'%s',$tidemill$", i, s->views[i]);
    tm__view_sql(&sql, s->views[i], selects[i]);
    tm__buf_text(&sql, "$tidemill$);");
  }
  tm__buf_text(&sql, "COMMIT");
  if (status == TM_OK)
    status = tm__buf_ok(&sql) ? tm__pg_exec_state(s, pg, sql.ptr, state, "make the views", err)
                              : tm__fail_memory(err, "the store's views");
  tm__buf_free(&sql);
  if (status != TM_OK) (void)tm__pg_exec(s, pg, "ROLLBACK", NULL, "roll back", NULL);
  return status;
}

static tm_status taken(const tm_store *s, tm_error *err) {
  return tm__fail(err, TM_EINVAL, "store.table_name",
                  "store %s: a view cannot be made, since another table of the schema \"%s\" has "
                  "its name: choose another name",
                  s->place, s->schema);
}

tm_status tm__pg_views(const tm_store *s, PGconn *pg, tm_error *err) {
  for (int tries = 0;; tries++) {
    char state[6];
    bool made = true;
    tm_status status = TM_OK;
    for (size_t i = 0; status == TM_OK && made && i < TM_VIEWS; i++)
      status = is_made(s, pg, i, &made, err);
    if (status != TM_OK || made) return status;
    status = make(s, pg, state, err);
    if (status == TM_OK) return TM_OK;
    bool again = tries < ATTEMPTS && tm__pg_is_race(state) && tm__pg_pause(s, PAUSE_MS);
    if (!again) return strcmp(state, "42P07") == 0 ? taken(s, err) : status;
  }
}
