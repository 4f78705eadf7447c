/* file_bytes.h - files as bytes: to damage them, and to see that nobody touched them. */
#ifndef TM_TESTS_PERSISTENCE_FILE_BYTES_H
#define TM_TESTS_PERSISTENCE_FILE_BYTES_H

#include <sqlite3.h>
#include <sys/stat.h>

#include "fixture.h"

typedef struct file_bytes {
  char *ptr;
  size_t len;
} file_bytes;

static inline file_bytes file_read(const char *path) {
  file_bytes b = {0};
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  assert_int_equal(fseek(f, 0, SEEK_END), 0);
  b.len = (size_t)ftell(f);
  rewind(f);
  b.ptr = malloc(b.len + 1);
  assert_non_null(b.ptr);
  assert_int_equal(fread(b.ptr, 1, b.len, f), b.len);
  (void)fclose(f);
  return b;
}

static inline void file_write(const char *path, const char *bytes, size_t len) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(bytes, 1, len, f), len);
  assert_int_equal(fclose(f), 0);
}

static inline void file_must_be(const char *path, file_bytes want) {
  file_bytes have = file_read(path);
  assert_int_equal(have.len, want.len);
  assert_memory_equal(have.ptr, want.ptr, want.len);
  free(have.ptr);
}

static inline int64_t file_size(const char *path, const char *suffix) {
  char name[320];
  struct stat st;
  (void)snprintf(name, sizeof(name), "%s%s", path, suffix);
  return stat(name, &st) == 0 ? (int64_t)st.st_size : -1; /* -1: not there */
}

static inline void file_scribble(char *bytes, size_t from, size_t to) {
  uint32_t x = 88172645U;
  for (size_t i = from; i < to; i++) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    bytes[i] = (char)x;
  }
}

/* A handle of SQLite's own, for what a person with a SQL client would do. */
static inline sqlite3 *sql_open(const char *path) {
  sqlite3 *db = NULL;
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  return db;
}

static inline void sql_run(sqlite3 *db, const char *sql) {
  char *message = NULL;
  int rc = sqlite3_exec(db, sql, NULL, NULL, &message);
  if (rc != SQLITE_OK) print_error("%s: %s\n", sql, message);
  assert_int_equal(rc, SQLITE_OK);
}

/* All cells of the answer, "|" between cells and a newline after each row; NULL cells as "NULL". */
static inline void sql_must_give(const char *path, const char *sql, const char *want) {
  sqlite3 *db = sql_open(path);
  sqlite3_stmt *st = NULL;
  tm_buf have = {0};
  assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
  int rc;
  while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    for (int i = 0; i < sqlite3_column_count(st); i++) {
      const char *text = (const char *)sqlite3_column_text(st, i);
      tm__buf_printf(&have, "%s%s", i > 0 ? "|" : "", text != NULL ? text : "NULL");
    }
    tm__buf_text(&have, "\n");
  }
  if (rc != SQLITE_DONE) print_error("%s: %s\n", sql, sqlite3_errmsg(db));
  assert_int_equal(rc, SQLITE_DONE);
  sqlite3_finalize(st);
  sqlite3_close(db);
  assert_string_equal(have.ptr != NULL ? have.ptr : "", want);
  tm__buf_free(&have);
}

#endif
