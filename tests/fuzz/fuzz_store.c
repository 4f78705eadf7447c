/* A SQLite file in which somebody has written: the input is a list of columns of heads, journal,
 * start_keys and sessions with values for them. Every read ends, with records that fit their
 * structs or with an error that says what is damaged; a list gives a damaged head by its id. */
#include <sqlite3.h>
#include <unistd.h>

#include "core/utf8.h"
#include "persistence/store.h"
#include "tests/fuzz/must.h"

#define CONVERSATION "01990000-0000-7000-8000-000000000001"

static const char *const columns[][2] = {
    {"heads", "tenant"},      {"heads", "session"},      {"heads", "system"},
    {"heads", "flow"},        {"heads", "version"},      {"heads", "step"},
    {"heads", "claim"},       {"heads", "status"},       {"heads", "revision"},
    {"heads", "tip"},         {"heads", "wake_at"},      {"heads", "created"},
    {"heads", "recent"},      {"heads", "id"},           {"journal", "parent"},
    {"journal", "base"},      {"journal", "kind"},       {"journal", "revision"},
    {"journal", "flags"},     {"journal", "checkpoint"}, {"journal", "conversation"},
    {"journal", "body"},      {"journal", "created"},    {"start_keys", "conversation"},
    {"start_keys", "answer"}, {"start_keys", "body"},    {"sessions", "user_id"},
    {"sessions", "metadata"}, {"sessions", "id"},        {"scripts", "sources"},
    {"heads", "ended"},       {"sessions", "flags"},     {"sessions", "look_at"},
    {"sessions", "ended"},    {"sessions", "created"},   {"sessions", "tenant"},
    {"notes", "text"},        {"notes", "name"},         {"tenants", "tenant"},
    {"tenants", "wake_at"},   {"purged", "tip"},         {"purged", "conversation"},
};
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static const char *const tables[] = {"heads",   "journal", "start_keys", "sessions",
                                     "scripts", "notes",   "tenants",    "purged"};
#define TABLES (sizeof(tables) / sizeof(tables[0]))

/* In memory where there is such a place: a run would wait for the disk. */
static char memory_dir[] = "/dev/shm/tidemill-fuzz-XXXXXX",
            disk_dir[] = "/tmp/tidemill-fuzz-XXXXXX";
static const char *dir = memory_dir;
static const tm_store_backend *backend;
static tm_store *store;
static tm_store_conn *conn;
static sqlite3 *raw;

/* ---- one conversation, written by the store itself ---- */

static void must_run(const char *sql) {
  char *message = NULL;
  int rc = sqlite3_exec(raw, sql, NULL, NULL, &message);
  if (rc != SQLITE_OK) (void)fprintf(stderr, "%s: %s\n", sql, message);
  MUST(rc == SQLITE_OK);
}

static void append(tm_head *h, const tm_session *session) {
  tm_error err;
  tm_row row = {.parent = h->tip,
                .kind = TM_ROW_TURN,
                .created = 5,
                .body = TM_S("{\"state\":{},\"status\":\"waiting_input\"}")};
  memcpy(row.conversation, h->id, sizeof(row.conversation));
  h->revision++;
  tm_commit c = {.head = *h,
                 .expect_revision = h->revision - 1,
                 .row = &row,
                 .start_key = session != NULL ? 7 : 0,
                 .start_body = 8,
                 .session = session};
  tm_commit *items[] = {&c};
  MUST(backend->commit(conn, items, 1, &err) == TM_OK && c.status == TM_OK);
  h->tip = c.row_id;
}

static void fill(void) {
  tm_error err;
  tm_session session = {.user_id = TM_S("ann"), .metadata = TM_S("{}"), .created = 5, .look_at = 6};
  tm_head h = {.id = CONVERSATION,
               .tenant = "default",
               .session = "s",
               .system = "talk",
               .flow = "talk",
               .version = "v1",
               .step = "ask",
               .status = TM_WAITING_INPUT,
               .wake_at = 10,
               .created = 5};
  append(&h, &session);
  append(&h, NULL);
  append(&h, NULL);
  tm_head gone = {.id = "01990000-0000-7000-8000-000000000002",
                  .tenant = "default",
                  .session = "s",
                  .system = "talk",
                  .status = TM_COMPLETED,
                  .ended = 7};
  append(&gone, NULL);
  MUST(backend->purge(conn, tm__slice(gone.id), 1, true, &err) == TM_OK);
  MUST(backend->note_put(conn, TM_S("seen"), TM_S("x"), &err) == TM_OK);
  MUST(backend->tenant_wake(conn, TM_S("acme"), -1, 9, &err) == TM_OK);
  MUST(backend->script_put(conn, TM_S("talk"), TM_S("v1"), TM_S("{}"), &err) == TM_OK);
}

static int64_t store_now(void *ud) {
  (void)ud;
  return 20;
}

static void remove_dir(void) {
  static const char *const files[] = {"store.db", "store.db-wal", "store.db-shm"};
  char path[64];
  for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
    (void)snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
    (void)unlink(path);
  }
  (void)rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  char path[64], sql[128];
  tm_error err;
  (void)argc;
  (void)argv;
  if (mkdtemp(memory_dir) == NULL) dir = mkdtemp(disk_dir);
  MUST(dir != NULL && atexit(remove_dir) == 0);
  (void)snprintf(path, sizeof(path), "%s/store.db", dir);
  backend = tm__store_backend(TM_S("sqlite"));
  const tm_store_options o = {.location = path, .wal = true, .now_ms = store_now};
  MUST(backend->open(&store, &o, &err) == TM_OK);
  MUST(backend->connect(&conn, store, TM_STORE_WRITER, &err) == TM_OK);
  fill();
  MUST(sqlite3_open(path, &raw) == SQLITE_OK);
  must_run("PRAGMA synchronous=OFF");
  for (size_t i = 0; i < TABLES; i++) {
    (void)snprintf(sql, sizeof(sql), "CREATE TEMP TABLE good_%s AS SELECT * FROM main.%s",
                   tables[i], tables[i]);
    must_run(sql);
  }
  return 0;
}

/* ---- damage ---- */

/* COLUMN TYPE LENGTH bytes. A value that the table itself refuses changes nothing. */
static size_t write_value(const uint8_t *data, size_t size) {
  sqlite3_stmt *st = NULL;
  char sql[160];
  if (size < 3) return size;
  const char *const *column = columns[data[0] % COLUMNS];
  size_t len = data[2] < size - 3 ? data[2] : size - 3;
  const uint8_t *value = data + 3;
  int64_t number = 0;
  memcpy(&number, value, len < 8 ? len : 8);
  (void)snprintf(sql, sizeof(sql), "UPDATE OR IGNORE main.%s SET %s=?1%s", column[0], column[1],
                 data[1] >= 128 ? " WHERE rowid=2" : "");
  bool all = sqlite3_prepare_v2(raw, sql, -1, &st, NULL) == SQLITE_OK;
  if (!all) { /* a table without rowid */
    *strstr(sql, " WHERE") = '\0';
    MUST(sqlite3_prepare_v2(raw, sql, -1, &st, NULL) == SQLITE_OK);
  }
  switch (data[1] % 4) {
  case 0: (void)sqlite3_bind_int64(st, 1, number); break;
  case 1: (void)sqlite3_bind_text(st, 1, (const char *)value, (int)len, SQLITE_STATIC); break;
  case 2: (void)sqlite3_bind_blob(st, 1, value, (int)len, SQLITE_STATIC); break;
  default: (void)sqlite3_bind_null(st, 1); break;
  }
  (void)sqlite3_step(st);
  (void)sqlite3_finalize(st);
  return 3 + len;
}

static void restore(void) {
  char sql[160];
  must_run("BEGIN");
  for (size_t i = 0; i < TABLES; i++) {
    (void)snprintf(sql, sizeof(sql),
                   "DELETE FROM main.%s; INSERT INTO main.%s SELECT * FROM temp.good_%s", tables[i],
                   tables[i], tables[i]);
    must_run(sql);
  }
  must_run("COMMIT");
}

/* ---- reading ---- */

static void check_head(const tm_head *h) {
  MUST(memchr(h->id, '\0', sizeof(h->id)) != NULL);
  MUST(memchr(h->tenant, '\0', sizeof(h->tenant)) != NULL);
  MUST(memchr(h->session, '\0', sizeof(h->session)) != NULL);
  MUST(memchr(h->claim, '\0', sizeof(h->claim)) != NULL);
  MUST(h->status >= TM_ACTIVE && h->status <= TM_CANCELLED);
  MUST(h->id[0] != '\0');
  MUST(tm__head_is_damaged(h) ? h->revision == -1 : h->revision > 0);
}

typedef struct listed {
  int whole, damaged; /* heads of the conversation */
} listed;

static tm_status on_head(void *ud, const tm_head *h) {
  listed *seen = ud;
  check_head(h);
  if (seen != NULL && strcmp(h->id, CONVERSATION) == 0)
    (*(tm__head_is_damaged(h) ? &seen->damaged : &seen->whole))++;
  return TM_OK;
}

static tm_status on_row(void *ud, const tm_row *row) {
  int *seen = ud;
  volatile char last = row->body.len > 0 ? row->body.ptr[row->body.len - 1] : '\0';
  (void)last;
  MUST(row->kind >= TM_ROW_BEGIN && row->kind <= TM_ROW_MIGRATE);
  MUST(memchr(row->conversation, '\0', sizeof(row->conversation)) != NULL);
  MUST(++*seen <= 3);
  return TM_OK;
}

static tm_status on_session(void *ud, const tm_session *s) {
  (void)ud;
  MUST(s->user_id.ptr != NULL || s->user_id.len == 0);
  MUST(s->tenant.len <= 64 && s->id.len <= 128);
  return TM_OK;
}

static tm_status on_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  (void)ud, (void)wake_at;
  MUST(tenant.ptr != NULL || tenant.len == 0);
  return TM_OK;
}

static void expect(tm_status s, const tm_error *err) {
  if (s == TM_OK) return;
  if (s != TM_ENOTFOUND && s != TM_ECORRUPT)
    (void)fprintf(stderr, "%s: %s\n", err->code, err->message);
  MUST(s == TM_ENOTFOUND || s == TM_ECORRUPT);
  MUST(strncmp(err->code, "store.", 6) == 0 || strcmp(err->code, "session.damaged") == 0);
}

/* A damaged head says so itself, and the list of all gives it by its id. */
static tm_status read_head(tm_head *out) {
  tm_error err = {0};
  listed seen = {0, 0};
  const tm_list_filter all = {.status = -1, .limit = 10};
  tm_status status = backend->head(conn, TM_S(CONVERSATION), out, &err);
  if (status == TM_ECORRUPT)
    MUST(strcmp(err.code, "journal.damaged") == 0);
  else
    expect(status, &err);
  if (status == TM_OK) check_head(out);
  expect(backend->list(conn, &all, on_head, &seen, &err), &err);
  MUST(seen.whole == (status == TM_OK));
  MUST(status == TM_ENOTFOUND || seen.damaged == (status == TM_ECORRUPT));
  return status;
}

/* Housekeeping changes what it finds, or says what is damaged. */
static void sweep_all(void) {
  tm_error err = {0};
  bool more = true;
  tm_status s = TM_OK;
  for (int i = 0; i < 20 && more && s == TM_OK; i++)
    s = backend->sweep(conn, 2, &more, &err);
  expect(s, &err);
  MUST(s != TM_OK || !more);
}

static void read_all(void) {
  tm_error err = {0};
  tm_head h;
  tm_start_key key;
  int64_t due;
  tm_status s = read_head(&h);
  for (int follow = 0; follow < 2 && s == TM_OK; follow++) {
    int seen = 0;
    expect(backend->chain(conn, TM_S(CONVERSATION), h.tip, follow != 0, on_row, &seen, &err), &err);
  }
  tm_list_filter f = {.tenant = TM_S("default"), .status = -1, .limit = 10};
  expect(backend->list(conn, &f, on_head, NULL, &err), &err);
  expect(backend->due(conn, 20, 0, 10, on_head, NULL, &err), &err);
  expect(backend->next_due(conn, &due, &err), &err);
  s = backend->start_key(conn, TM_S("default"), 7, &key, &err);
  expect(s, &err);
  if (s == TM_OK) MUST(memchr(key.conversation, '\0', sizeof(key.conversation)) != NULL);
  expect(backend->session(conn, TM_S("default"), TM_S("s"), on_session, NULL, &err), &err);
  expect(backend->sessions_due(conn, 20, 10, on_session, NULL, &err), &err);
  for (int ended = -1; ended <= 1; ended++) {
    const tm_session_filter sf = {.tenant = TM_S("default"), .ended = ended, .limit = 10};
    expect(backend->sessions(conn, &sf, on_session, NULL, &err), &err);
  }
  expect(backend->ended(conn, 20, 10, on_head, NULL, &err), &err);
  expect(backend->tenants_due(conn, 20, 10, on_tenant, NULL, &err), &err);
  expect(backend->tenants(conn, TM_S(""), 10, on_tenant, NULL, &err), &err);
  tm_buf sources = {0};
  expect(backend->note_get(conn, TM_S("seen"), &sources, &err), &err);
  expect(backend->script_get(conn, TM_S("talk"), TM_S("v1"), &sources, &err), &err);
  tm__buf_free(&sources);
}

/* What cannot be read can be removed, whatever else it says. */
static void purge_damaged(void) {
  tm_error err = {0};
  tm_head h;
  if (backend->head(conn, TM_S(CONVERSATION), &h, &err) != TM_ECORRUPT) return;
  tm_status status = backend->purge(conn, TM_S(CONVERSATION), -1, true, &err);
  if (status != TM_OK) (void)fprintf(stderr, "%s: %s\n", err.code, err.message);
  MUST(status == TM_OK);
  MUST(backend->head(conn, TM_S(CONVERSATION), &h, &err) == TM_ENOTFOUND);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > 2000) return 0;
  must_run("BEGIN");
  for (size_t at = 0; at < size;)
    at += write_value(data + at, size - at);
  must_run("COMMIT");
  read_all();
  purge_damaged();
  sweep_all();
  restore();
  return 0;
}
