/* store_postgres_inspect.c - what is wrong or unsafe: the server's settings that break the promise
 * that nothing acknowledged is lost, and records that contradict each other. */
#include <stdlib.h>

#include "persistence/store_postgres.h"

#define OLDEST_VERSION 120000

typedef struct look {
  const char *sql; /* one column; no row: nothing was found */
  tm_finding level;
  const char *text; /* printf's %s: what the row says */
} look;

/* Settings that a compatible server does not have are NULL. */
static const look settings[] = {
    {"SELECT 1 WHERE current_setting('fsync',true)='off'", TM_FINDING_ERROR,
     "the server runs with fsync=off: when its machine stops, what was acknowledged may be lost "
     "and "
     "the database damaged; set fsync=on in postgresql.conf"},
    {"SELECT 1 WHERE current_setting('full_page_writes',true)='off'", TM_FINDING_ERROR,
     "the server runs with full_page_writes=off: when its machine stops, pages may be torn; set "
     "full_page_writes=on in postgresql.conf"},
    {"SELECT reset_val FROM pg_catalog.pg_settings WHERE name='synchronous_commit' AND "
     "reset_val='off'",
     TM_FINDING_WARNING,
     "synchronous_commit is off for this role or database: the host turns it on for its own "
     "transactions, other programs may lose theirs; set synchronous_commit=on"},
    {"SELECT 1 WHERE current_setting('synchronous_commit',true)='off'", TM_FINDING_ERROR,
     "synchronous_commit is off and cannot be turned on: what was acknowledged may be lost; set "
     "synchronous_commit=on"},
    {"SELECT 1 WHERE pg_is_in_recovery()", TM_FINDING_ERROR,
     "the server is a standby and takes no writes; name the primary, or several hosts and "
     "target_session_attrs=read-write, in workflow_persistence.postgres.url"},
    {"SELECT 1 WHERE current_setting('transaction_read_only',true)='on'", TM_FINDING_ERROR,
     "transactions are read-only (default_transaction_read_only); turn that off for this role"},
    {"SELECT current_setting('server_encoding') WHERE current_setting('server_encoding')<>'UTF8'",
     TM_FINDING_ERROR,
     "the database's encoding is %s: texts may be refused; make one with ENCODING 'UTF8'"},
};

static const look permission = {
    "SELECT current_user WHERE NOT has_database_privilege(current_database(),'CREATE')",
    TM_FINDING_ERROR,
    "there is no store yet, and the role %s may not make its schema: GRANT CREATE ON DATABASE to "
    "it, or make the schema for it"};

static const look waiting = {
    "SELECT 1 WHERE (SELECT count(*) FROM (SELECT 1 FROM purged LIMIT 100001) n)>100000",
    TM_FINDING_WARNING,
    "rows of more than 100,000 purged conversations wait to be removed: does any host sweep?"};

static const look deep_looks[] = {
    {"SELECT h.id FROM heads h LEFT JOIN journal j ON j.conversation=h.id AND j.revision=h.tip "
     "WHERE h.tip<>0 AND j.revision IS NULL LIMIT 1",
     TM_FINDING_ERROR,
     "the newest row of conversation %s is missing, and perhaps of others; restore a backup"},
    {"SELECT j.conversation FROM journal j JOIN heads h ON h.id=j.conversation LEFT JOIN journal p "
     "ON p.conversation=j.conversation AND p.revision=j.parent WHERE j.parent<>0 AND "
     "p.revision IS NULL LIMIT 1",
     TM_FINDING_ERROR, "a row of conversation %s has a parent that is missing; restore a backup"},
    {"SELECT j.conversation FROM journal j JOIN heads h ON h.id=j.conversation LEFT JOIN journal p "
     "ON p.conversation=j.conversation AND p.revision=j.base WHERE j.base<>0 AND "
     "p.revision IS NULL LIMIT 1",
     TM_FINDING_ERROR,
     "a row of conversation %s continues at one that is missing; restore a backup"},
    {"SELECT j.conversation FROM journal j JOIN heads h ON h.id=j.conversation "
     "WHERE j.revision>h.tip OR j.revision>h.revision OR j.parent>=j.revision OR "
     "j.base>=j.revision LIMIT 1",
     TM_FINDING_ERROR, "the rows of conversation %s are in no order; restore a backup"},
    {"SELECT j.conversation FROM journal j LEFT JOIN heads h ON h.id=j.conversation LEFT JOIN "
     "purged p ON p.conversation=j.conversation WHERE h.id IS NULL AND p.conversation IS NULL "
     "LIMIT 1",
     TM_FINDING_WARNING, "there are rows of conversation %s, which does not exist"},
    {"SELECT n FROM (SELECT count(*) AS n FROM purged WHERE NOT (" TM_PG_PURGED_NAMED
     ")) m WHERE n>0",
     TM_FINDING_ERROR,
     "the mark of a purged conversation cannot be read (%s in all), and its rows stay: remove it "
     "from the table purged"},
    {"SELECT k.conversation FROM start_keys k LEFT JOIN heads h ON h.id=k.conversation "
     "WHERE h.id IS NULL LIMIT 1",
     TM_FINDING_WARNING, "a start key names conversation %s, which does not exist"},
    {"SELECT h.session FROM heads h LEFT JOIN sessions s ON s.tenant=h.tenant AND s.id=h.session "
     "WHERE s.id IS NULL AND h.session<>'' LIMIT 1",
     TM_FINDING_INFO, "conversations are in the session %s, of which nothing is kept"},
};

static void tell(const look *l, const char *word, tm_finding_fn fn, void *ud) {
  tm_buf b = {0};
  const char *at = strstr(l->text, "%s");
  if (at == NULL) {
    fn(ud, l->level, l->text);
    return;
  }
  tm__buf_add(&b, l->text, (size_t)(at - l->text));
  tm__buf_text(&b, word);
  tm__buf_text(&b, at + 2);
  fn(ud, l->level, tm__buf_ok(&b) ? b.ptr : l->text);
  tm__buf_free(&b);
}

static tm_status look_at(tm_store_conn *c, const look *l, tm_finding_fn fn, void *ud,
                         tm_error *err) {
  PGresult *r = NULL;
  tm_status status = tm__pg_ready(c, err);
  if (status == TM_OK) status = tm__pg_exec(c->store, c->pg, l->sql, &r, "look at the store", err);
  if (status == TM_OK && PQntuples(r) > 0) tell(l, PQgetvalue(r, 0, 0), fn, ud);
  PQclear(r);
  return status;
}

static void look_at_version(const tm_store_conn *c, tm_finding_fn fn, void *ud) {
  if (PQserverVersion(c->pg) >= OLDEST_VERSION) return;
  fn(ud, TM_FINDING_WARNING,
     "the server is older than PostgreSQL 12, with which nobody has tried this; update it");
}

typedef struct teller {
  tm_finding_fn fn;
  void *ud;
} teller;

static tm_status tell_unreadable(void *ud, const tm_error *why) {
  const teller *t = ud;
  t->fn(t->ud, TM_FINDING_ERROR, why->message);
  return TM_OK;
}

/* On a connection without the session's limit of time, which goes afterwards. */
static tm_status look_deep(tm_store_conn *c, tm_finding_fn fn, void *ud, tm_error *err) {
  tm_status status =
      tm__pg_exec(c->store, c->pg, "SET statement_timeout TO 0", NULL, "look at the store", err);
  for (size_t i = 0; status == TM_OK && i < sizeof(deep_looks) / sizeof(deep_looks[0]); i++)
    status = look_at(c, &deep_looks[i], fn, ud, err);
  teller t = {fn, ud};
  if (status == TM_OK) status = tm__pg_unreadable(c, tell_unreadable, &t, err);
  tm__pg_drop(c);
  return status;
}

tm_status tm__pg_inspect(tm_store_conn *c, bool deep, tm_finding_fn fn, void *ud, tm_error *err) {
  tm_status status = tm__pg_ready(c, err);
  if (status == TM_OK) look_at_version(c, fn, ud);
  for (size_t i = 0; status == TM_OK && i < sizeof(settings) / sizeof(settings[0]); i++)
    status = look_at(c, &settings[i], fn, ud, err);
  if (status == TM_OK) status = look_at(c, c->store->absent ? &permission : &waiting, fn, ud, err);
  if (status == TM_OK && c->store->absent) return tm__store_absent(c->store->place, err);
  return status == TM_OK && deep ? look_deep(c, fn, ud, err) : status;
}
