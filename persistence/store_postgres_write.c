/* store_postgres_write.c - transactions that are known to have happened or not.
 *
 * Every writer has a row with a number that each of its transactions raises. When the server goes
 * away between COMMIT and its answer, the number says whether the transaction happened, and
 * setting it to another one makes sure that it never will: the server may still be at it. All
 * answers of the statements are there before COMMIT is sent, so nothing else can be in doubt. */
#include <stdlib.h>

#include "persistence/store_postgres.h"

#define ATTEMPTS_MAX 20 /* of a transaction that others come between */
#define AGAIN_MIN_MS 2
#define AGAIN_MAX_MS 100
#define DOUBT_MIN_MS 25
#define DOUBT_MAX_MS 1000

static int64_t now_ms(const tm_store_conn *c) {
  return c->store->now_ms(c->store->now_ud);
}

/* ---- the writer's number ---- */

/* *serial becomes what it is: `happened` if that was reached, else `otherwise`, for ever. */
static tm_pg_kind settle(tm_store_conn *c, int64_t happened, int64_t otherwise, int64_t *serial,
                         tm_error *err) {
  tm_pg_args a = {0};
  PGresult *r = NULL;
  tm__pg_int(&a, c->writer);
  tm__pg_int(&a, happened);
  tm__pg_int(&a, otherwise);
  tm__pg_int(&a, now_ms(c));
  tm_pg_kind kind =
      tm__pg_run(c->store, c->pg, TM_PG_SETTLE, &a, &r, "find out about a transaction", err);
  if (kind == TM_PG_DONE) *serial = tm__pg_get_int(r, 0, 0);
  if (kind == TM_PG_LOST) tm__pg_drop(c);
  PQclear(r);
  return kind;
}

/* Also for a row that a sweep took for a dead writer's. */
static tm_status register_writer(tm_store_conn *c, tm_error *err) {
  tm_error why = {0};
  if (c->registered) return TM_OK;
  c->registered = settle(c, -1, c->serial, &c->serial, &why) == TM_PG_DONE;
  if (c->registered) return TM_OK;
  if (err != NULL) *err = why;
  return why.status;
}

void tm__pg_unregister(tm_store_conn *c) {
  tm_pg_args a = {0};
  tm__pg_int(&a, c->writer);
  (void)tm__pg_run(c->store, c->pg, TM_PG_UNREGISTER, &a, NULL, "say goodbye", NULL);
}

/* ---- doubt ---- */

static tm_status resolve(tm_store_conn *c, bool *happened, tm_error *err) {
  int64_t serial;
  tm_error why = {0};
  tm_status status = tm__pg_ready(c, &why);
  if (status == TM_OK && settle(c, c->serial + 1, c->serial + 2, &serial, &why) == TM_PG_DONE) {
    *happened = serial == c->serial + 1;
    c->serial = serial;
    c->doubt = false;
    return TM_OK;
  }
  if (err != NULL) *err = why;
  return why.status;
}

static tm_status unknown(const tm_store_conn *c, tm_error *why) {
  char code[sizeof(why->code)];
  (void)tm__copy(code, sizeof(code), tm__slice(why->code));
  return tm__fail(why, TM_EUNAVAILABLE, "store.outcome_unknown",
                  "store %s: the host stopped before it could find out whether this was stored: "
                  "repeat the request with the same Idempotency-Key, or read the conversation "
                  "first (%s)",
                  c->store->place, code);
}

/* Waits until it is known. */
static tm_status find_out(tm_store_conn *c, bool *happened, tm_error *why) {
  for (int64_t ms = DOUBT_MIN_MS;
       tm__pg_interrupted(c->store) || resolve(c, happened, why) != TM_OK;) {
    if (!tm__pg_pause(c->store, ms)) return unknown(c, why);
    ms = ms * 2 < DOUBT_MAX_MS ? ms * 2 : DOUBT_MAX_MS;
  }
  return TM_OK;
}

/* Connected, registered, and nothing is left in doubt by an earlier transaction. */
static tm_status prepare(tm_store_conn *c, tm_error *err) {
  bool happened;
  tm_status status = c->doubt ? resolve(c, &happened, err) : tm__pg_ready(c, err);
  return status == TM_OK ? register_writer(c, err) : status;
}

/* ---- transactions ---- */

static bool send_begin(tm_store_conn *c) {
  const tm_pg_args none = {0};
  tm_pg_args a = {0};
  tm__pg_int(&a, c->writer);
  tm__pg_int(&a, c->serial + 1);
  tm__pg_int(&a, c->serial);
  tm__pg_int(&a, now_ms(c));
  return tm__pg_send(c->pg, TM_PG_BEGIN, &none) && tm__pg_send(c->pg, TM_PG_ADVANCE, &a);
}

typedef struct transaction { /* what reads the results of a pipeline */
  tm_pg_work *work;
  size_t before; /* statements that are not the work's */
} transaction;

static void take(void *ud, size_t index, PGresult *r) {
  transaction *t = ud;
  if (index >= t->before && t->work->take != NULL) t->work->take(t->work, index - t->before, r);
}

static tm_pg_kind send_work(tm_store_conn *c, tm_pg_work *w, tm_error *err) {
  transaction t = {w, 2};
  if (PQenterPipelineMode(c->pg) != 1 || !send_begin(c) || !w->send(w, c->pg) ||
      PQpipelineSync(c->pg) != 1) {
    (void)tm__pg_fail(err, c->store, c->pg, NULL, w->doing);
    return TM_PG_LOST;
  }
  tm_pg_kind kind = tm__pg_results(c->store, c->pg, take, &t, w->doing, err);
  return kind != TM_PG_LOST && PQexitPipelineMode(c->pg) != 1 ? TM_PG_LOST : kind;
}

/* A transaction that failed answers COMMIT with ROLLBACK. */
static tm_pg_kind send_commit(tm_store_conn *c, const char *doing, tm_error *err) {
  const tm_pg_args none = {0};
  PGresult *r = NULL;
  tm_pg_kind kind = tm__pg_run(c->store, c->pg, TM_PG_COMMIT, &none, &r, doing, err);
  if (kind == TM_PG_DONE && strcmp(PQcmdStatus(r), "COMMIT") != 0) {
    (void)tm__fail(err, TM_EUNAVAILABLE, "store.busy",
                   "store %s: %s: the server rolled the transaction back; try again",
                   c->store->place, doing);
    kind = TM_PG_AGAIN;
  }
  PQclear(r);
  return kind;
}

static void roll_back(tm_store_conn *c) {
  if (c->pg == NULL || PQtransactionStatus(c->pg) == PQTRANS_IDLE) return;
  if (tm__pg_exec(c->store, c->pg, "ROLLBACK", NULL, "roll back", NULL) != TM_OK) tm__pg_drop(c);
}

/* Once; nothing is in doubt afterwards unless c->doubt. */
static tm_pg_kind attempt(tm_store_conn *c, tm_pg_work *w, tm_error *err) {
  tm_pg_kind kind = send_work(c, w, err);
  if (kind == TM_PG_DONE) {
    kind = send_commit(c, w->doing, err);
    c->doubt = kind == TM_PG_LOST;
  }
  if (kind == TM_PG_DONE) c->serial++;
  if (kind == TM_PG_LOST)
    tm__pg_drop(c);
  else if (kind != TM_PG_DONE)
    roll_back(c);
  return kind;
}

/* Attempts that others came between end at some time; so do those that a connection did not
 * survive. */
static bool may_try_again(tm_store_conn *c, tm_pg_kind kind, int tries) {
  if (kind == TM_PG_LOST) return tries < 2;
  int64_t ms = (int64_t)AGAIN_MIN_MS << (tries < 6 ? tries : 6);
  return kind == TM_PG_AGAIN && tries < ATTEMPTS_MAX &&
         tm__pg_pause(c->store, ms < AGAIN_MAX_MS ? ms : AGAIN_MAX_MS);
}

/* What came of an attempt that did not work: TM_OK where it did all the same, or may be made again
 * (*again). */
static tm_status after(tm_store_conn *c, tm_pg_kind kind, int tries, bool *again, tm_error *why) {
  bool happened = false;
  if (c->doubt) {
    tm__pg_note_down(c->store, why);
    tm_status status = find_out(c, &happened, why);
    if (status != TM_OK || happened) return status;
  }
  if (kind == TM_PG_AGAIN) c->registered = false; /* perhaps the row is gone */
  *again = may_try_again(c, kind, tries);
  return *again ? TM_OK : why->status;
}

tm_status tm__pg_write(tm_store_conn *c, tm_pg_work *w, tm_error *err) {
  tm_error why = {0};
  tm_status status = TM_OK;
  bool again = true;
  for (int tries = 0; again; tries++) {
    again = false;
    status = prepare(c, &why);
    if (status == TM_OK) {
      tm_pg_kind kind = attempt(c, w, &why);
      if (kind != TM_PG_DONE) status = after(c, kind, tries, &again, &why);
    } else {
      again =
          tries == 0 && c->pg == NULL && c->failures == 0; /* it was closed while nobody used it */
    }
  }
  if (status != TM_OK && err != NULL) *err = why;
  return status;
}

/* ---- one statement ---- */

typedef struct single {
  tm_pg_work work;
  tm_pg_sql which;
  const tm_pg_args *args;
  int64_t *number;
} single;

static bool send_single(tm_pg_work *w, PGconn *pg) {
  const single *one = (const single *)(void *)w;
  return tm__pg_send(pg, one->which, one->args);
}

static void take_single(tm_pg_work *w, size_t index, PGresult *r) {
  const single *one = (const single *)(void *)w;
  (void)index;
  if (one->number == NULL) return;
  bool row = PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) > 0;
  *one->number = row ? tm__pg_get_int(r, 0, 0) : strtoll(PQcmdTuples(r), NULL, 10);
}

tm_status tm__pg_write_one(tm_store_conn *c, tm_pg_sql which, const tm_pg_args *a, int64_t *number,
                           const char *doing, tm_error *err) {
  single one = {{doing, send_single, take_single}, which, a, number};
  return tm__pg_write(c, &one.work, err);
}
