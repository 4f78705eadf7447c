/* store_postgres_error.c - what went wrong, from what PostgreSQL and libpq say: a status, a code,
 * and what to do. */
#include <string.h>

#include "persistence/store_postgres.h"

typedef struct failure {
  const char *state; /* an SQLSTATE, or its class */
  tm_status status;
  const char *code, *advice;
} failure;

#define AWAY                                                                                       \
  "check that the server runs and that its address is right; the host goes on by itself when it "  \
  "is back"
#define LOGIN                                                                                      \
  "correct user and password in workflow_persistence.postgres.url, or let the user in with "       \
  "pg_hba.conf"

/* The first that fits; a class stands behind its members. */
static const failure failures[] = {
    {"28", TM_EUNAVAILABLE, "store.login", LOGIN},
    {"3D000", TM_EUNAVAILABLE, "store.no_database",
     "create the database (createdb), or name another in workflow_persistence.postgres.url"},
    {"53100", TM_EUNAVAILABLE, "store.full",
     "nothing is lost; free space on the server's disk and try again"},
    {"53300", TM_EUNAVAILABLE, "store.connections",
     "raise max_connections of the server or the limit of the role; a host needs some eight "
     "connections, each tenant's own store as many"},
    {"53", TM_EUNAVAILABLE, "store.server", "the server lacks memory or another resource"},
    {"25006", TM_EUNAVAILABLE, "store.read_only",
     "the server takes no writes, as a standby does: name the primary, or several hosts and "
     "target_session_attrs=read-write, in workflow_persistence.postgres.url"},
    {"42501", TM_EUNAVAILABLE, "store.permission",
     "let an administrator grant the role CREATE on the database, or run CREATE SCHEMA with "
     "AUTHORIZATION for it; a schema that is there, and all in it, must be the role's own"},
    {"40", TM_EUNAVAILABLE, "store.busy", "other writers came in between; try again"},
    {"55P03", TM_EUNAVAILABLE, "store.busy", "another session holds a lock; try again"},
    {"57014", TM_EUNAVAILABLE, "store.busy", "the server took too long; try again"},
    {"22012", TM_EUNAVAILABLE, "store.busy", "the writer's row was swept away; try again"},
    {"23505", TM_EUNAVAILABLE, "store.busy", "other writers came in between; try again"},
    {"57P", TM_EUNAVAILABLE, "store.away", AWAY},
    {"08", TM_EUNAVAILABLE, "store.away", AWAY},
    {"25P03", TM_EUNAVAILABLE, "store.away", AWAY},
    {"58", TM_EUNAVAILABLE, "store.io", "look at the server's log and its disk"},
    {"XX001", TM_ECORRUPT, "store.damaged", "the server's files are damaged; restore a backup"},
    {"XX002", TM_ECORRUPT, "store.damaged", "an index is damaged; run REINDEX on the database"},
    {"3F000", TM_ECORRUPT, "store.damaged", "its schema is gone; restore a backup"},
    {"42P01", TM_ECORRUPT, "store.damaged", "a table is gone; restore a backup"},
    {"42703", TM_ECORRUPT, "store.damaged", "a column is gone; restore a backup"},
    {"42704", TM_ECORRUPT, "store.damaged", "something of its tables is gone; restore a backup"},
};
static const failure away = {"", TM_EUNAVAILABLE, "store.away", AWAY};
static const failure unknown = {"", TM_EUNAVAILABLE, "store.server",
                                "look at the server's log and report it"};

static const char *state_of(const PGresult *r) {
  const char *state = r != NULL ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
  return state != NULL ? state : "";
}

static bool begins(const char *text, const char *with) {
  return strncmp(text, with, strlen(with)) == 0;
}

/* What a server says while it refuses a connection comes without a state. */
static const char *state_in(const char *words) {
  static const char *const known[][2] = {
      {"password authentication failed", "28P01"}, {"no password supplied", "28P01"},
      {"no pg_hba.conf entry", "28000"},           {"authentication failed", "28000"},
      {"is not permitted to log in", "28000"},     {"too many clients", "53300"},
      {"remaining connection slots", "53300"},     {"too many connections", "53300"},
      {"hot standby mode is disabled", "25006"},   {"session is read-only", "25006"},
      {"is in hot standby mode", "25006"},         {"permission denied for database", "42501"}};
  for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
    if (strstr(words, known[i][0]) != NULL) return known[i][1];
  if (strstr(words, "role \"") != NULL && strstr(words, "does not exist") != NULL) return "28000";
  if (strstr(words, "database \"") != NULL && strstr(words, "does not exist") != NULL)
    return "3D000";
  return "";
}

static const failure *failure_of(const char *state) {
  for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
    if (begins(state, failures[i].state)) return &failures[i];
  return &unknown;
}

/* The server's last word on this connection, which says nothing of what a COMMIT has done. */
static bool is_last_word(const PGresult *r) {
  const char *severity = PQresultErrorField(r, PG_DIAG_SEVERITY_NONLOCALIZED);
  return severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

tm_pg_kind tm__pg_kind_of(const PGconn *pg, const PGresult *r) {
  const char *state = state_of(r);
  if (PQstatus(pg) == CONNECTION_BAD || state[0] == '\0' || is_last_word(r)) return TM_PG_LOST;
  if (begins(state, "08") || begins(state, "57P") || strcmp(state, "40003") == 0 ||
      strcmp(state, "25P03") == 0)
    return TM_PG_LOST; /* or the outcome is not known to the server itself */
  if (strcmp(state, "0A000") == 0 || strcmp(state, "26000") == 0)
    return TM_PG_LOST; /* prepared statements are no longer what they were */
  if (strcmp(state, "25006") == 0)
    return TM_PG_LOST; /* a standby, or what was one: the primary may be at its address by now */
  if (begins(state, "40") || strcmp(state, "23505") == 0 || strcmp(state, "22012") == 0)
    return TM_PG_AGAIN;
  return TM_PG_REFUSED;
}

/* The first line, without the password should it be in there. */
static void copy_words(const tm_store *s, const char *words, char *out, size_t size) {
  size_t len = strcspn(words, "\n");
  tm_slice line = {words, len < size ? len : size - 1};
  (void)tm__copy(out, size, line);
  for (size_t i = 0; s->keywords != NULL && s->keywords[i] != NULL; i++) {
    const char *secret = s->values[i];
    if (strcmp(s->keywords[i], "password") != 0 && strcmp(s->keywords[i], "sslpassword") != 0)
      continue;
    if (secret[0] != '\0' && strstr(out, secret) != NULL)
      (void)tm__copy(out, size, TM_S("(what it says has the password in it)"));
  }
}

tm_status tm__pg_fail(tm_error *err, const tm_store *s, const PGconn *pg, const PGresult *r,
                      const char *doing) {
  char words[320];
  const char *state = state_of(r);
  const char *said = r != NULL ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
  if (said == NULL) said = PQerrorMessage(pg);
  bool silent = state[0] == '\0' && PQstatus(pg) == CONNECTION_OK;
  if (silent && said[0] == '\0') said = "the server does not answer";
  if (strstr(said, "out of memory") != NULL && state[0] == '\0')
    return tm__fail_memory(err, "the store");
  copy_words(s, said, words, sizeof(words));
  if (state[0] == '\0') state = state_in(said);
  const failure *f = state[0] == '\0' ? &away : failure_of(state);
  return tm__fail(err, f->status, f->code, "store %s: %s: %s%s%s; %s", s->place, doing, words,
                  state[0] != '\0' ? ", SQLSTATE " : "", state, f->advice);
}

tm_status tm__pg_damaged(tm_error *err, const tm_store *s, const char *what) {
  return tm__fail(err, TM_ECORRUPT, "store.damaged",
                  "store %s is damaged: %s; it was left as it is: restore a backup", s->place,
                  what);
}

tm_status tm__pg_not_found(tm_error *err, const char *what) {
  return tm__fail(err, TM_ENOTFOUND, "store.not_found", "the store has no such %s", what);
}
