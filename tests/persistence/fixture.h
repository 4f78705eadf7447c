/* fixture.h - a store in a place of its own with a clock that tests turn, and short ways to
 * commit. */
#ifndef TM_TESTS_PERSISTENCE_FIXTURE_H
#define TM_TESTS_PERSISTENCE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "persistence/store.h"

typedef struct fixture {
  const tm_store_backend *backend;
  char dir[128], file[160], url[256];
  tm_store_options options;
  int64_t now;
  tm_store *store;
  tm_store_conn *writer, *reader;
  tm_error err;
} fixture;

/* The n-th conversation; later ones sort behind earlier ones, as UUIDv7 do. */
typedef struct conversation_id {
  char text[TM_ID_SIZE];
} conversation_id;

static inline conversation_id nth(int n) {
  conversation_id id;
  (void)snprintf(id.text, sizeof(id.text), "019a0000-0000-7000-8000-%012d", n);
  return id;
}

#define assert_ok(fx, call)                                                                        \
  do {                                                                                             \
    tm_status status_ = (call);                                                                    \
    if (status_ != TM_OK) print_error("%s: %s\n", (fx)->err.code, (fx)->err.message);              \
    assert_int_equal(status_, TM_OK);                                                              \
  } while (0)

static inline int64_t fixture_now(void *ud) {
  return ((fixture *)ud)->now;
}

static inline void fixture_open(fixture *fx) {
  assert_ok(fx, fx->backend->open(&fx->store, &fx->options, &fx->err));
  assert_ok(fx, fx->backend->connect(&fx->writer, fx->store, TM_STORE_WRITER, &fx->err));
  assert_ok(fx, fx->backend->connect(&fx->reader, fx->store, TM_STORE_READER, &fx->err));
}

static inline void fixture_close(fixture *fx) {
  fx->backend->disconnect(fx->writer);
  fx->backend->disconnect(fx->reader);
  fx->backend->close(fx->store);
  fx->writer = fx->reader = NULL;
  fx->store = NULL;
}

#include "servers.h"
#include "tests/scratch.h"

/* ---- where each backend has its store: a line of the table ---- */

static inline void place_file(fixture *fx) {
  (void)snprintf(fx->file, sizeof(fx->file), "%s/a b%%/x.db", fx->dir);
  fx->options.location = fx->file;
}

static inline void place_folder(fixture *fx) {
  (void)snprintf(fx->file, sizeof(fx->file), "%s/a b%%/states", fx->dir);
  fx->options.location = fx->file;
}

static inline void place_nowhere(fixture *fx) {
  fx->options.location = "";
}

static const struct fixture_place {
  const char *scheme;
  void (*make)(fixture *fx);   /* sets options.location to an empty store of this test's own */
  void (*remove)(fixture *fx); /* NULL: it lies in the fixture's folder */
} fixture_places[] = {
    {"sqlite", place_file, NULL},
    {"memory", place_nowhere, NULL},
    {"file", place_folder, NULL},
    {"redis", place_redis, unplace_redis},
    {"postgres", place_postgres, unplace_postgres},
};

static inline const struct fixture_place *fixture_place_of(const fixture *fx) {
  const size_t count = sizeof(fixture_places) / sizeof(fixture_places[0]);
  size_t i = 0;
  while (i + 1 < count && strcmp(fixture_places[i].scheme, fx->backend->scheme) != 0)
    i++;
  assert_string_equal(fixture_places[i].scheme, fx->backend->scheme); /* not in the table? */
  return &fixture_places[i];
}

/* A folder and options; nothing is opened. */
static inline void fixture_make(fixture *fx, const tm_store_backend *backend) {
  *fx = (fixture){.backend = backend, .now = 1763802000000};
  assert_true(scratch_make(fx->dir, sizeof(fx->dir), "store"));
  fx->options =
      (tm_store_options){.timeout_ms = 50, .wal = true, .now_ms = fixture_now, .now_ud = fx};
  fixture_place_of(fx)->make(fx);
}

static inline int fixture_unlink(const char *path, const struct stat *st, int type,
                                 struct FTW *where) {
  (void)st, (void)type, (void)where;
  return remove(path);
}

static inline void fixture_remove(fixture *fx) {
  fixture_close(fx);
  if (fixture_place_of(fx)->remove != NULL) fixture_place_of(fx)->remove(fx);
  assert_int_equal(nftw(fx->dir, fixture_unlink, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void set_text(char *dst, size_t size, const char *text) {
  assert_true(tm__copy(dst, size, tm__slice(text)));
}

/* A commit of conversation `id` that takes it to revision expect + 1, waiting for input. */
static inline tm_commit commit_of(const fixture *fx, const char *id, int64_t expect,
                                  const tm_row *row) {
  tm_commit c = {.expect_revision = expect, .row = row};
  set_text(c.head.id, sizeof(c.head.id), id);
  set_text(c.head.tenant, sizeof(c.head.tenant), "default");
  set_text(c.head.session, sizeof(c.head.session), "s1");
  set_text(c.head.system, sizeof(c.head.system), "shop");
  set_text(c.head.flow, sizeof(c.head.flow), "returns");
  set_text(c.head.version, sizeof(c.head.version), "3f9c");
  set_text(c.head.step, sizeof(c.head.step), "ask");
  c.head.status = TM_WAITING_INPUT;
  c.head.revision = expect + 1;
  c.head.created = fx->now;
  return c;
}

static inline tm_row row_of(const fixture *fx, int64_t parent, const char *body) {
  return (tm_row){
      .parent = parent, .kind = TM_ROW_TURN, .created = fx->now, .body = tm__slice(body)};
}

static inline tm_status commit_one(fixture *fx, tm_commit *c) {
  tm_commit *items[] = {c};
  tm_status status = fx->backend->commit(fx->writer, items, 1, &fx->err);
  return status != TM_OK ? status : c->status;
}

/* Appends one row to the conversation and gives its id. */
static inline int64_t turn(fixture *fx, const char *id, int64_t expect, int64_t parent,
                           const char *body) {
  tm_row row = row_of(fx, parent, body);
  tm_commit c = commit_of(fx, id, expect, &row);
  assert_ok(fx, commit_one(fx, &c));
  assert_true(c.row_id > parent);
  return c.row_id;
}

static inline tm_head head_of(fixture *fx, const char *id) {
  tm_head head;
  memset(&head, 0x5a, sizeof(head));
  assert_ok(fx, fx->backend->head(fx->reader, tm__slice(id), &head, &fx->err));
  return head;
}

#endif
