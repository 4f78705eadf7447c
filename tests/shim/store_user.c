/* store_user.c - uses a store on a disk that fails, for power_store.test.mjs.
 * `store_user SCHEME LOCATION live`: conversations are made, purged and swept, sessions, notes and
 * tenants written, each acknowledged on the output as soon as the store says that it is durable.
 * `store_user SCHEME LOCATION check <ACKNOWLEDGED`: is all of that there, once and whole? Says what
 * is not. Without a write-ahead log with "nolog" as the fourth argument. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "persistence/store.h"

enum { CONVERSATIONS = 10, ROWS = 4 };

static const tm_store_backend *backend;
static tm_store *store;
static tm_store_conn *conn;
static tm_error err;

__attribute__((format(printf, 1, 2))) static _Noreturn void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  (void)vprintf(format, args);
  va_end(args);
  (void)printf("\n");
  exit(1);
}

static int64_t now(void *ud) {
  (void)ud;
  return 1763802000000;
}

static void done(const char *what, int n, int64_t value) {
  (void)printf("%s %d %lld\n", what, n, (long long)value);
  (void)fflush(stdout);
}

static void must(tm_status status) {
  if (status != TM_OK) fail("%s: %s", err.code, err.message);
}

static const char *id_of(int n) {
  static char id[TM_ID_SIZE];
  (void)snprintf(id, sizeof(id), "019a0000-0000-7000-8000-%012d", n);
  return id;
}

static tm_slice body_of(int n, int64_t revision) {
  static char body[8192];
  size_t len = (size_t)(500 + 1500 * revision);
  memset(body, 'a' + (n * ROWS + (int)revision) % 26, len);
  return (tm_slice){body, len};
}

/* ---- a life ---- */

static void turn(int n, int64_t revision, int64_t *tip) {
  tm_row row = {.parent = *tip, .kind = TM_ROW_TURN, .body = body_of(n, revision)};
  tm_commit c = {.expect_revision = revision - 1, .row = &row};
  tm_commit *items[] = {&c};
  (void)tm__copy(c.head.id, sizeof(c.head.id), tm__slice(id_of(n)));
  (void)tm__copy(c.head.tenant, sizeof(c.head.tenant), TM_S("default"));
  (void)tm__copy(c.head.session, sizeof(c.head.session), TM_S("s"));
  c.head.revision = revision;
  c.head.status = revision == ROWS ? TM_COMPLETED : TM_WAITING_INPUT;
  c.head.ended = revision == ROWS ? 5 : 0;
  c.start_key = revision == 1 ? (uint64_t)n + 1 : 0;
  must(backend->commit(conn, items, 1, &err));
  if (c.status != TM_OK) fail("turn %d of %d: %s", (int)revision, n, tm_status_name(c.status));
  *tip = c.row_id;
  done("turn", n, revision);
}

static void write_others(int n) {
  char text[16];
  (void)snprintf(text, sizeof(text), "%d", n);
  const tm_session s = {.tenant = TM_S("default"), .id = tm__slice(text), .created = n + 1};
  must(backend->session_put(conn, NULL, &s, &err));
  done("session", n, 0);
  must(backend->note_put(conn, TM_S("newest"), tm__slice(text), &err));
  done("note", n, 0);
  must(backend->tenant_wake(conn, TM_S("acme"), -1, 1000 - n, &err));
  done("wake", n, 0);
}

static void live(void) {
  bool more;
  for (int n = 0; n < CONVERSATIONS; n++) {
    int64_t tip = 0;
    for (int64_t revision = 1; revision <= ROWS; revision++)
      turn(n, revision, &tip);
    write_others(n);
    if (n == 0 || n % 3 == 0) continue;
    must(backend->purge(conn, tm__slice(id_of(n - 1)), ROWS, true, &err));
    done("purge", n - 1, 0);
    must(backend->sweep(conn, 3, &more, &err));
    done("sweep", n, 0);
  }
}

/* ---- what is left of it ---- */

typedef struct expected {
  int64_t revision[CONVERSATIONS];
  bool purged[CONVERSATIONS], session[CONVERSATIONS];
  int note, wake; /* the newest; -1: none */
} expected;

static void hear(expected *e) {
  char what[16];
  int n;
  long long value;
  *e = (expected){.note = -1, .wake = -1};
  while (scanf("%15s %d %lld", what, &n, &value) == 3) {
    if (n < 0 || n >= CONVERSATIONS) fail("an odd number: %d", n);
    if (strcmp(what, "turn") == 0) e->revision[n] = value;
    if (strcmp(what, "purge") == 0) e->purged[n] = true;
    if (strcmp(what, "session") == 0) e->session[n] = true;
    if (strcmp(what, "note") == 0) e->note = n;
    if (strcmp(what, "wake") == 0) e->wake = n;
  }
}

typedef struct rows {
  int n;
  int64_t revision;
} rows;

static tm_status check_row(void *ud, const tm_row *row) {
  rows *r = ud;
  tm_slice body = body_of(r->n, r->revision);
  if (row->revision != r->revision || row->body.len != body.len ||
      memcmp(row->body.ptr, body.ptr, body.len) != 0)
    fail("row %lld of %d is another one", (long long)r->revision, r->n);
  r->revision--;
  return TM_OK;
}

/* The one call that was under way may have been done or not. */
static void check_conversation(const expected *e, int n) {
  tm_head head;
  tm_status status = backend->head(conn, tm__slice(id_of(n)), &head, &err);
  bool complete = e->revision[n] == ROWS;
  if (status == TM_ENOTFOUND) {
    bool going = complete && (n + 1 == CONVERSATIONS || e->revision[n + 1] == ROWS);
    if (e->revision[n] > 0 && !e->purged[n] && !going) fail("conversation %d is missing", n);
    return;
  }
  must(status);
  if (e->purged[n]) fail("conversation %d was purged", n);
  if (head.revision != e->revision[n] && head.revision != e->revision[n] + 1)
    fail("conversation %d has %lld turns, not %lld", n, (long long)head.revision,
         (long long)e->revision[n]);
  rows r = {n, head.revision};
  must(backend->chain(conn, tm__slice(id_of(n)), head.tip, false, check_row, &r, &err));
  if (r.revision != 0) fail("rows of conversation %d are missing", n);
}

static tm_status take_created(void *ud, const tm_session *s) {
  *(int64_t *)ud = s->created;
  return TM_OK;
}

static tm_status take_wake(void *ud, tm_slice tenant, int64_t wake_at) {
  if (tm__slice_is(tenant, "acme")) *(int64_t *)ud = wake_at;
  return TM_OK;
}

static void check_others(const expected *e) {
  char text[16];
  int64_t wake = -1;
  tm_buf note = {0};
  for (int n = 0; n < CONVERSATIONS; n++) {
    int64_t created = 0;
    if (!e->session[n]) continue;
    (void)snprintf(text, sizeof(text), "%d", n);
    must(backend->session(conn, TM_S("default"), tm__slice(text), take_created, &created, &err));
    if (created != n + 1) fail("session %d is another one", n);
  }
  tm_status status = backend->note_get(conn, TM_S("newest"), &note, &err);
  if (status != TM_ENOTFOUND) must(status);
  int have = status == TM_OK ? atoi(note.ptr) : -1;
  tm__buf_free(&note);
  if (have != e->note && have != e->note + 1) fail("the note says %d, not %d", have, e->note);
  must(backend->tenants(conn, TM_S(""), 10, take_wake, &wake, &err));
  bool same = e->wake < 0 ? wake == -1 : wake == 1000 - e->wake;
  if (!same && wake != 1000 - (e->wake + 1)) fail("the tenant is due at %lld", (long long)wake);
}

static void check_finding(void *ud, tm_finding level, const char *text) {
  (void)ud;
  if (level == TM_FINDING_ERROR) fail("%s", text);
}

/* Service goes on: everything can be purged, and then nothing is left. */
static void purge_all(void) {
  bool more = true;
  for (int n = 0; n < CONVERSATIONS; n++) {
    tm_head head;
    tm_status status = backend->head(conn, tm__slice(id_of(n)), &head, &err);
    if (status == TM_ENOTFOUND) continue;
    must(status);
    must(backend->purge(conn, tm__slice(id_of(n)), head.revision, true, &err));
  }
  while (more)
    must(backend->sweep(conn, 5, &more, &err));
  must(backend->inspect(conn, true, check_finding, NULL, &err));
  int64_t tip = 0;
  for (int64_t revision = 1; revision <= ROWS; revision++)
    turn(0, revision, &tip);
}

static void check(void) {
  expected e;
  hear(&e);
  must(backend->inspect(conn, true, check_finding, NULL, &err));
  for (int n = 0; n < CONVERSATIONS; n++)
    check_conversation(&e, n);
  check_others(&e);
  purge_all();
}

int main(int argc, char **argv) {
  if (argc < 4) fail("store_user SCHEME LOCATION live|check [nolog]");
  backend = tm__store_backend(tm__slice(argv[1]));
  if (backend == NULL) fail("there is no backend %s", argv[1]);
  const tm_store_options o = {
      .location = argv[2], .timeout_ms = 1000, .auto_vacuum = true, .wal = argc < 5, .now_ms = now};
  must(backend->open(&store, &o, &err));
  must(backend->connect(&conn, store, TM_STORE_WRITER, &err));
  if (strcmp(argv[3], "live") == 0)
    live();
  else
    check();
  backend->disconnect(conn);
  backend->close(store);
  return 0;
}
