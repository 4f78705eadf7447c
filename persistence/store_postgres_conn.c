/* store_postgres_conn.c - one connection: its session's settings, connecting again when it was
 * lost. While the server is away, attempts become rare and whoever asks in between hears it at
 * once; the first connection that is made ends the wait of the others. */
#include <stdlib.h>

#include "persistence/store_postgres.h"

#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 2000

/* ---- the server's health, for the host ---- */

void tm__pg_note_down(tm_store *s, const tm_error *err) {
  bool was = __atomic_exchange_n(&s->down, true, __ATOMIC_ACQ_REL);
  if (!was && s->on_health != NULL) s->on_health(s->event_ud, err);
}

static void note_up(tm_store *s) {
  bool was = __atomic_exchange_n(&s->down, false, __ATOMIC_ACQ_REL);
  if (was && s->on_health != NULL) s->on_health(s->event_ud, NULL);
}

/* ---- sessions ---- */

static void ignore_notice(void *ud, const PGresult *r) {
  (void)ud, (void)r;
}

/* A server that acknowledges before its log is on the disk does not do so to us. A transaction that
 * a stopped host has left open is ended by the server. */
static void session_sql(const tm_store *s, tm_store_role role, tm_buf *b) {
  int64_t wait = s->timeout_ms < 1 ? 1 : s->timeout_ms;
  tm__buf_printf(b,
                 "SET search_path TO \"%s\";SET lock_timeout TO %lld;SET statement_timeout TO %lld;"
                 "SET idle_in_transaction_session_timeout TO 10000;"
                 "SET standard_conforming_strings TO on;"
                 "SELECT set_config('synchronous_commit','on',false) "
                 "WHERE current_setting('synchronous_commit')='off'",
                 s->schema, (long long)wait, role == TM_STORE_READER ? (long long)wait : 0LL);
}

tm_status tm__pg_dial(PGconn **out, const tm_store *s, tm_store_role role, tm_error *err) {
  *out = NULL;
  PGconn *pg =
      PQconnectdbParams((const char *const *)s->keywords, (const char *const *)s->values, 0);
  if (pg == NULL) return tm__fail_memory(err, "a connection of the store");
  tm_status status = TM_OK;
  tm_buf sql = {0};
  (void)PQsetNoticeReceiver(pg, ignore_notice, NULL);
  session_sql(s, role, &sql);
  if (PQstatus(pg) != CONNECTION_OK)
    status = tm__pg_fail(err, s, pg, NULL, "connect");
  else if (!tm__buf_ok(&sql) || PQsetnonblocking(pg, 1) != 0)
    status = tm__fail_memory(err, "a connection of the store");
  else
    status = tm__pg_exec(s, pg, sql.ptr, NULL, "set up a session", err);
  tm__buf_free(&sql);
  if (status == TM_OK)
    *out = pg;
  else
    PQfinish(pg);
  return status;
}

/* ---- connecting ---- */

void tm__pg_drop(tm_store_conn *c) {
  if (c->pg != NULL) PQfinish(c->pg);
  c->pg = NULL;
}

int64_t tm__pg_retry_ms(unsigned failures) {
  int64_t ms = failures > 5 ? RETRY_MAX_MS : (int64_t)RETRY_MIN_MS << failures;
  uint32_t random;
  tm__random_bytes(&random, sizeof(random));
  if (ms > RETRY_MAX_MS) ms = RETRY_MAX_MS;
  return ms / 2 + (int64_t)(random % (uint32_t)(ms / 2 + 1));
}

static tm_status open_session(tm_store_conn *c, tm_error *err) {
  PGconn *pg;
  tm_status status = tm__pg_dial(&pg, c->store, c->role, err);
  if (status != TM_OK) return status;
  if (!c->store->absent) status = tm__pg_prepare_all(c->store, pg, err);
  if (status == TM_OK)
    c->pg = pg;
  else
    PQfinish(pg);
  return status;
}

/* Why connecting is not even tried now; TM_OK: it is. */
static tm_status put_off(const tm_store_conn *c, tm_error *err) {
  if (tm__pg_interrupted(c->store))
    return tm__fail(err, TM_EUNAVAILABLE, "store.away",
                    "store %s: the connection was lost, and the host stops", c->store->place);
  if (c->failures == 0 || tm__pg_monotonic_us() >= c->retry_us) return TM_OK;
  if (__atomic_load_n(&c->store->arrivals, __ATOMIC_RELAXED) != c->arrivals) return TM_OK;
  if (err != NULL) *err = c->failure;
  return c->failure.status;
}

static tm_status connect_again(tm_store_conn *c, tm_error *err) {
  tm_status status = put_off(c, err);
  if (status != TM_OK) return status;
  c->arrivals = __atomic_load_n(&c->store->arrivals, __ATOMIC_RELAXED);
  status = open_session(c, &c->failure);
  if (status == TM_OK) {
    c->failures = 0;
    __atomic_add_fetch(&c->store->arrivals, 1, __ATOMIC_RELAXED);
    note_up(c->store);
    return TM_OK;
  }
  c->retry_us = tm__pg_monotonic_us() + tm__pg_retry_ms(c->failures++) * 1000;
  tm__pg_note_down(c->store, &c->failure);
  if (err != NULL) *err = c->failure;
  return status;
}

static bool is_on(PGconn *pg, const char *parameter) {
  const char *value = PQparameterStatus(pg, parameter);
  return value != NULL && strcmp(value, "on") == 0;
}

/* A server that was restarted while nobody asked it anything has closed its end. One that takes no
 * writes is not kept: what it lets read may be old, and the primary may be at its address by now.
 */
static bool is_open(const tm_store_conn *c) {
  if (c->pg == NULL) return false;
  return PQconsumeInput(c->pg) == 1 && PQstatus(c->pg) == CONNECTION_OK &&
         !is_on(c->pg, "in_hot_standby") && !is_on(c->pg, "default_transaction_read_only");
}

tm_status tm__pg_ready(tm_store_conn *c, tm_error *err) {
  if (is_open(c)) return TM_OK;
  tm__pg_drop(c);
  return connect_again(c, err);
}

tm_status tm__pg_connect(tm_store_conn **out, tm_store *s, tm_store_role role, tm_error *err) {
  *out = NULL;
  tm_store_conn *c = calloc(1, sizeof(*c));
  if (c == NULL) return tm__fail_memory(err, "a connection of the store");
  c->store = s;
  c->role = role;
  tm__random_bytes(&c->writer, sizeof(c->writer));
  tm_status status = tm__pg_ready(c, err);
  if (status == TM_OK)
    *out = c;
  else
    tm__pg_disconnect(c);
  return status;
}

void tm__pg_disconnect(tm_store_conn *c) {
  if (c == NULL) return;
  if (c->registered && !c->doubt && is_open(c)) tm__pg_unregister(c);
  tm__pg_drop(c);
  free(c);
}
