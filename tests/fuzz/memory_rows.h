/* memory_rows.h - one conversation in a store in memory, with rows of any content, and store jobs
 * that run at once on the caller's thread; included once per fuzz target. */
#ifndef TESTS_FUZZ_MEMORY_ROWS_H
#define TESTS_FUZZ_MEMORY_ROWS_H

#include "core/json.h"
#include "journal/reader.h"
#include "journal/render.h"
#include "journal/slot.h"
#include "tests/fuzz/must.h"

#define CONVERSATION "01990000-0000-7000-8000-000000000001"

static tm_store *store;
static tm_store_access access_;

/* ---- in place of storage.c ---- */

void tm__storage_run(tm_storage *s, tm_store_job *job) {
  (void)s;
  job->error = (tm_error){0};
  job->status = job->work(job, &access_, &job->error);
  job->message.run(&job->message);
}

bool tm__storage_durable(const tm_storage *s, bool in_memory) {
  (void)s;
  return !in_memory;
}

void tm__storage_commit(tm_storage *s, tm_commit_job *job) {
  (void)s;
  (void)job;
  abort();
}

void tm__storage_tell(tm_storage *s, const char *word) {
  (void)s;
  (void)word;
  abort();
}

/* ---- the store: `conn` is empty, the conversation is in `memory_conn` ---- */

static inline int64_t rows_now(void *ud) {
  (void)ud;
  return 1800000000000;
}

static tm_store *empty_store;

static inline void connect_to(tm_store **s, tm_store_conn **c) {
  const tm_store_backend *b = tm__store_backend(TM_S("memory"));
  const tm_store_options o = {.location = "", .now_ms = rows_now};
  tm_error err;
  MUST(b->open(s, &o, &err) == TM_OK);
  MUST(b->connect(c, *s, TM_STORE_WRITER, &err) == TM_OK);
  access_.backend = access_.memory_backend = b;
}

static inline void rows_open(void) {
  connect_to(&store, &access_.memory_conn);
  if (empty_store == NULL) connect_to(&empty_store, &access_.conn);
}

static inline void rows_close(void) {
  access_.backend->disconnect(access_.memory_conn);
  access_.backend->close(store);
}

/* Appends a row; its parent is the newest one. False: the store does not take it. */
static inline bool rows_add(tm_head *h, tm_row *row) {
  tm_error err;
  row->parent = h->tip;
  h->revision++;
  tm_commit c = {.head = *h, .expect_revision = h->revision - 1, .row = row};
  tm_commit *items[] = {&c};
  MUST(access_.backend->commit(access_.memory_conn, items, 1, &err) == TM_OK);
  if (c.status != TM_OK) {
    h->revision--;
    return false;
  }
  h->tip = c.row_id;
  return true;
}

static inline tm_head rows_head(void) {
  tm_head h = {.id = CONVERSATION,
               .tenant = "default",
               .session = "s",
               .system = "talk",
               .flow = "talk",
               .version = "v1",
               .step = "ask",
               .status = TM_WAITING_INPUT,
               .created = 1800000000000};
  return h;
}

/* ---- reading ---- */

typedef struct reply {
  int calls;
  tm_status status;
  char code[48];
  tm_buf json;
} reply;

static inline void on_answer(void *ud, const tm_reply *r) {
  reply *to = ud;
  to->calls++;
  to->status = r->status;
  if (r->status == TM_OK)
    tm__buf_add(&to->json, r->json, r->size);
  else
    (void)snprintf(to->code, sizeof(to->code), "%s", r->error->code);
}

/* One answer: JSON, or one of the errors that stored data may cause. */
static inline void check_reply(const reply *r, bool sound) {
  json_t *v = NULL;
  MUST(r->calls == 1);
  if (r->status != TM_OK) {
    MUST(r->status == TM_ECORRUPT || r->status == TM_EINVAL || r->status == TM_ENOTFOUND);
    MUST(r->code[0] != '\0');
    return;
  }
  tm_status s = tm__json_parse(&v, tm__buf_view(&r->json), 4 * TM_JSON_DEPTH, NULL);
  json_decref(v);
  MUST(s == TM_OK || !sound);
}

/* The caller frees `json`. */
static inline reply read_page(tm_read what, tm_slice cursor, int limit) {
  reply r = {0};
  tm__reader_conversation(NULL, TM_S("default"), TM_S(CONVERSATION), what, cursor, limit, NULL,
                          on_answer, &r);
  return r;
}

#endif
