/* store_postgres_query.c - parameters and results, all of them binary, and waiting for what the
 * server says no longer than the store may wait. */
#include <poll.h>

#include "core/clock.h"
#include "core/utf8.h"
#include "persistence/store_postgres.h"

#define GRACE_US  (INT64_C(2) * 1000 * 1000) /* the server notices first what takes too long */
#define LAST_US   (INT64_C(1000) * 1000)     /* for a process that stops */
#define SLICE_MS  200
#define READS_MAX 8
#define BINARY    1

/* ---- parameters ---- */

static void add(tm_pg_args *a, const char *value, size_t length) {
  int at = a->count++;
  a->values[at] = value;
  a->lengths[at] = (int)length;
  a->formats[at] = BINARY;
}

void tm__pg_int(tm_pg_args *a, int64_t value) {
  char *to = a->numbers[a->count];
  for (int i = 0; i < 8; i++)
    to[i] = (char)((uint64_t)value >> (56 - 8 * i) & 0xff);
  add(a, to, 8);
}

void tm__pg_bytes(tm_pg_args *a, tm_slice bytes) {
  add(a, bytes.ptr, bytes.len);
}

void tm__pg_text(tm_pg_args *a, const char *text) {
  add(a, text, strlen(text));
}

bool tm__pg_is_text(tm_slice text) {
  return text.len == 0 || (memchr(text.ptr, '\0', text.len) == NULL && tm__utf8_valid(text));
}

/* ---- results ---- */

tm_slice tm__pg_get(const PGresult *r, int row, int column) {
  if (PQgetisnull(r, row, column)) return (tm_slice){NULL, 0};
  return (tm_slice){PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column)};
}

int64_t tm__pg_get_int(const PGresult *r, int row, int column) {
  tm_slice bytes = tm__pg_get(r, row, column);
  if (bytes.len == 0) return 0;
  uint64_t value = (unsigned char)bytes.ptr[0] >= 0x80 ? UINT64_MAX : 0; /* the sign */
  for (size_t i = 0; i < bytes.len; i++)
    value = value << 8 | (unsigned char)bytes.ptr[i];
  return (int64_t)value;
}

bool tm__pg_get_text(const PGresult *r, int row, int column, char *out, size_t size) {
  return tm__copy(out, size, tm__pg_get(r, row, column));
}

/* ---- waiting ---- */

static int64_t deadline(const tm_store *s) {
  return tm__pg_monotonic_us() + s->timeout_ms * 1000 + GRACE_US;
}

/* Until the socket can be read, or written if there is still something to send, or for a while. */
static void wait_a_while(PGconn *pg, int64_t left_us) {
  int unsent = PQflush(pg);
  int64_t ms = left_us / 1000 + 1;
  struct pollfd p = {.fd = PQsocket(pg), .events = (short)(unsent > 0 ? POLLIN | POLLOUT : POLLIN)};
  if (unsent < 0 || poll(&p, 1, ms < SLICE_MS ? (int)ms : SLICE_MS) != 0) (void)PQconsumeInput(pg);
}

/* The next result of what was sent; NULL at the end of a statement's. False: the connection is
 * lost, or nothing came until `deadline_us` (monotonic). */
static bool next(const tm_store *s, PGconn *pg, int64_t deadline_us, PGresult **out) {
  bool interrupted = false;
  *out = NULL;
  while (PQisBusy(pg) && PQstatus(pg) != CONNECTION_BAD) {
    int64_t now = tm__pg_monotonic_us();
    if (!interrupted && tm__pg_interrupted(s)) {
      interrupted = true;
      if (deadline_us > now + LAST_US) deadline_us = now + LAST_US;
    }
    if (now >= deadline_us) return false;
    wait_a_while(pg, deadline_us - now);
  }
  *out = PQgetResult(pg);
  return PQstatus(pg) == CONNECTION_OK;
}

/* ---- statements that stand alone ---- */

static bool is_good(const PGresult *r) {
  ExecStatusType status = PQresultStatus(r);
  return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* All results of what was sent; keeps the last, or the first that is an error. */
static tm_pg_kind collect(const tm_store *s, PGconn *pg, bool sent, int64_t deadline_us,
                          PGresult **out, const char *doing, tm_error *err) {
  PGresult *kept = NULL, *r = NULL;
  bool ok = sent;
  do {
    ok = ok && next(s, pg, deadline_us, &r);
    if (r != NULL && kept != NULL && !is_good(kept)) {
      PQclear(r);
    } else if (r != NULL) {
      PQclear(kept);
      kept = r;
    }
  } while (ok && r != NULL);
  if (ok && is_good(kept)) {
    if (out != NULL)
      *out = kept;
    else
      PQclear(kept);
    return TM_PG_DONE;
  }
  const PGresult *words = is_good(kept) ? NULL : kept;
  (void)tm__pg_fail(err, s, pg, words, doing);
  tm_pg_kind kind = tm__pg_kind_of(pg, words);
  PQclear(kept);
  return kind;
}

static tm_status status_of(tm_pg_kind kind, const tm_error *err) {
  return kind == TM_PG_DONE ? TM_OK : err->status;
}

tm_status tm__pg_exec(const tm_store *s, PGconn *pg, const char *sql, PGresult **out,
                      const char *doing, tm_error *err) {
  tm_error why = {0};
  bool sent = PQsendQuery(pg, sql) == 1;
  tm_pg_kind kind = collect(s, pg, sent, deadline(s), out, doing, &why);
  if (err != NULL) *err = why;
  return status_of(kind, &why);
}

tm_status tm__pg_exec_state(const tm_store *s, PGconn *pg, const char *sql, char state[6],
                            const char *doing, tm_error *err) {
  PGresult *r = NULL;
  bool ok = PQsendQuery(pg, sql) == 1;
  tm_status status = TM_OK;
  state[0] = '\0';
  while ((ok = ok && next(s, pg, TM_PG_NEVER, &r)) || r != NULL) {
    if (r == NULL) return status;
    if (!is_good(r) && status == TM_OK) {
      const char *said = PQresultErrorField(r, PG_DIAG_SQLSTATE);
      (void)tm__copy(state, 6, tm__slice(said != NULL ? said : ""));
      status = tm__pg_fail(err, s, pg, r, doing);
    }
    PQclear(r);
    r = NULL;
  }
  return status != TM_OK ? status : tm__pg_fail(err, s, pg, NULL, doing);
}

tm_status tm__pg_exec_args(const tm_store *s, PGconn *pg, const char *sql, const tm_pg_args *a,
                           PGresult **out, const char *doing, tm_error *err) {
  tm_error why = {0};
  bool sent =
      PQsendQueryParams(pg, sql, a->count, NULL, a->values, a->lengths, a->formats, BINARY) == 1;
  tm_pg_kind kind = collect(s, pg, sent, deadline(s), out, doing, &why);
  if (err != NULL) *err = why;
  return status_of(kind, &why);
}

/* ---- prepared statements ---- */

static const struct statement {
  const char *name, *types, *sql;
} statements[] = {
#define STATEMENT(name, types, sql) {#name, types, sql},
#include "persistence/store_postgres.def"
#undef STATEMENT
};

static Oid type_of(char letter) {
  switch (letter) {
  case 'i': return 20; /* bigint */
  case 't': return 25; /* text */
  default: return 17;  /* bytea */
  }
}

static bool prepare(PGconn *pg, const struct statement *st) {
  Oid types[TM_PG_ARGS_MAX];
  size_t count = strlen(st->types);
  for (size_t i = 0; i < count; i++)
    types[i] = type_of(st->types[i]);
  return PQsendPrepare(pg, st->name, st->sql, (int)count, types) == 1;
}

/* ---- pipelines ---- */

/* One statement's result, then NULL, or the end of the pipeline. */
static bool next_in_pipeline(const tm_store *s, PGconn *pg, int64_t deadline_us, PGresult **out) {
  PGresult *end = NULL;
  bool ok = next(s, pg, deadline_us, out) && *out != NULL;
  if (ok && PQresultStatus(*out) != PGRES_PIPELINE_SYNC) {
    ok = next(s, pg, deadline_us, &end) && end == NULL;
    PQclear(end);
  }
  return ok;
}

tm_pg_kind tm__pg_results(const tm_store *s, PGconn *pg, tm_pg_result_fn fn, void *ud,
                          const char *doing, tm_error *err) {
  tm_pg_kind kind = TM_PG_DONE;
  int64_t deadline_us = deadline(s);
  PGresult *r = NULL;
  for (size_t i = 0; next_in_pipeline(s, pg, deadline_us, &r); i++) {
    ExecStatusType status = PQresultStatus(r);
    if (status != PGRES_PIPELINE_SYNC && kind == TM_PG_DONE) {
      if (!is_good(r)) {
        (void)tm__pg_fail(err, s, pg, r, doing);
        kind = tm__pg_kind_of(pg, r);
      } else if (fn != NULL) {
        fn(ud, i, r);
      }
    }
    PQclear(r);
    if (status == PGRES_PIPELINE_SYNC) return kind;
  }
  if (kind == TM_PG_DONE) (void)tm__pg_fail(err, s, pg, is_good(r) ? NULL : r, doing);
  PQclear(r);
  return TM_PG_LOST;
}

tm_status tm__pg_prepare_all(const tm_store *s, PGconn *pg, tm_error *err) {
  size_t count = sizeof(statements) / sizeof(statements[0]);
  bool ok = PQenterPipelineMode(pg) == 1;
  for (size_t i = 0; ok && i < count; i++)
    ok = prepare(pg, &statements[i]);
  ok = ok && PQpipelineSync(pg) == 1;
  tm_error why = {0};
  ok = ok && tm__pg_results(s, pg, NULL, NULL, "prepare its statements", &why) == TM_PG_DONE;
  if (ok && PQexitPipelineMode(pg) == 1) return TM_OK;
  if (why.status == TM_OK) (void)tm__pg_fail(&why, s, pg, NULL, "prepare its statements");
  if (err != NULL) *err = why;
  return why.status;
}

bool tm__pg_send(PGconn *pg, tm_pg_sql which, const tm_pg_args *a) {
  return PQsendQueryPrepared(pg, statements[which].name, a->count, a->values, a->lengths,
                             a->formats, BINARY) == 1;
}

tm_pg_kind tm__pg_run(const tm_store *s, PGconn *pg, tm_pg_sql which, const tm_pg_args *a,
                      PGresult **out, const char *doing, tm_error *err) {
  return collect(s, pg, tm__pg_send(pg, which, a), deadline(s), out, doing, err);
}

/* Of an attempt to read that did not work: is there to be another? */
static bool reads_again(tm_store_conn *c, tm_pg_kind kind, int tries) {
  if (kind == TM_PG_AGAIN) return tries < READS_MAX && tm__pg_pause(c->store, tries + 1);
  bool closed = kind == TM_PG_LOST && PQstatus(c->pg) == CONNECTION_BAD;
  if (kind == TM_PG_LOST) tm__pg_drop(c);
  return closed && tries == 0;
}

tm_status tm__pg_read(tm_store_conn *c, tm_pg_sql which, const char *sql, const tm_pg_args *a,
                      PGresult **out, const char *doing, tm_error *err) {
  for (int tries = 0;; tries++) {
    tm_error why = {0};
    tm_status status = tm__pg_ready(c, err);
    if (status != TM_OK) return status;
    bool sent = sql == NULL ? tm__pg_send(c->pg, which, a)
                            : PQsendQueryParams(c->pg, sql, a->count, NULL, a->values, a->lengths,
                                                a->formats, BINARY) == 1;
    tm_pg_kind kind = collect(c->store, c->pg, sent, deadline(c->store), out, doing, &why);
    if (kind == TM_PG_DONE) return TM_OK;
    if (reads_again(c, kind, tries)) continue;
    if (err != NULL) *err = why;
    return why.status;
  }
}
