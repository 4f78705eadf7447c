/* store_postgres_views.c - the guide's tables as views for people with a SQL client. */
#include <string.h>
#include <strings.h>

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
  "SELECT h.id AS conversation_id, h.session AS session_id, h.flow AS flow_id,"
  " CASE h.status WHEN 0 THEN 'active' WHEN 1 THEN 'waiting_input' WHEN 2 THEN 'waiting_approval'"
  "  WHEN 3 THEN 'waiting_event' WHEN 4 THEN 'waiting_agent' WHEN 5 THEN 'sleeping'"
  "  WHEN 6 THEN 'paused' WHEN 7 THEN 'completed' WHEN 8 THEN 'failed' WHEN 9 THEN 'expired'"
  "  WHEN 10 THEN 'cancelled' END AS status,"
  " h.step AS current_step, (" JSON ")->'state' AS state_data,"
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

static const struct view {
  const char *name; /* unless the configuration has another */
  const char *select;
} view_list[TM_PG_VIEWS] = {
    {"workflow_conversations", conversations_select},
    {"workflow_steps", steps_select},
    {"workflow_checkpoints", checkpoints_select},
    {"workflow_sessions", sessions_select},
};

/* ---- names ---- */

static bool is_identifier(const char *name) {
  size_t len = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
  return len > 0 && len < TM_PG_NAME && name[len] == '\0' && (name[0] < '0' || name[0] > '9');
}

static bool is_taken(const tm_store *s, size_t count, const char *name) {
  static const char *const tables[] = {"heads",   "journal", "start_keys", "sessions",
                                       "scripts", "notes",   "tenants",    "purged",
                                       "writers", "locks",   "views",      "schema_version"};
  static const char *const indexes[] = {"heads_", "start_keys_", "sessions_", "tenants_"};
  for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
    if (strcasecmp(name, tables[i]) == 0) return true;
  for (size_t i = 0; i < sizeof(indexes) / sizeof(indexes[0]); i++)
    if (strncasecmp(name, indexes[i], strlen(indexes[i])) == 0) return true;
  for (size_t i = 0; i < count; i++)
    if (strcasecmp(name, s->views[i]) == 0) return true;
  size_t len = strlen(name);
  return len > 5 && strcasecmp(name + len - 5, "_pkey") == 0;
}

tm_status tm__pg_view_names(tm_store *s, const char *const *names, tm_error *err) {
  for (size_t i = 0; i < TM_PG_VIEWS; i++) {
    const char *name = names[i] != NULL ? names[i] : view_list[i].name;
    if (!is_identifier(name))
      return tm__fail(err, TM_EINVAL, "store.table_name",
                      "\"%.100s\" cannot name a table: use a letter or _, then letters, digits and "
                      "_, at most 63",
                      name);
    if (is_taken(s, i, name))
      return tm__fail(err, TM_EINVAL, "store.table_name",
                      "the name \"%s\" is taken by another table of the store: choose another",
                      name);
    (void)tm__copy(s->views[i], sizeof(s->views[i]), tm__slice(name));
  }
  return TM_OK;
}

/* ---- making ---- */

static void view_sql(const tm_store *s, size_t kind, tm_buf *b) {
  tm__buf_printf(b, "CREATE VIEW \"%s\" AS ", s->views[kind]);
  tm__buf_text(b, view_list[kind].select);
}

/* Is view `kind` there as it should be? */
static tm_status is_made(const tm_store *s, PGconn *pg, size_t kind, bool *made, tm_error *err) {
  tm_buf sql = {0};
  tm_pg_args a = {0};
  PGresult *r = NULL;
  view_sql(s, kind, &sql);
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
  for (size_t i = 0; i < TM_PG_VIEWS; i++) {
    view_sql(s, i, &sql);
    tm__buf_printf(&sql, ";INSERT INTO views VALUES(%zu,'%s',$tidemill$", i, s->views[i]);
    view_sql(s, i, &sql);
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
    for (size_t i = 0; status == TM_OK && made && i < TM_PG_VIEWS; i++)
      status = is_made(s, pg, i, &made, err);
    if (status != TM_OK || made) return status;
    status = make(s, pg, state, err);
    if (status == TM_OK) return TM_OK;
    bool again = tries < ATTEMPTS && tm__pg_is_race(state) && tm__pg_pause(s, PAUSE_MS);
    if (!again) return strcmp(state, "42P07") == 0 ? taken(s, err) : status;
  }
}
