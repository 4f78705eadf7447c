/* file_store.h - what the tests of the file backend do to its folder behind its back. */
#ifndef TM_TESTS_PERSISTENCE_FILE_STORE_H
#define TM_TESTS_PERSISTENCE_FILE_STORE_H

#include "contract.h"
#include "persistence/store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static inline int file_set_up(void **state) {
  *state = (void *)(uintptr_t)tm__store_backend(TM_S("file"));
  return set_up(state);
}

#define FILE_CASE(f)                                                                               \
  { #f, f, file_set_up, tear_down, NULL }

typedef struct path {
  char text[400];
} path;

static inline path beside(const fixture *fx, const char *name) {
  path p;
  (void)snprintf(p.text, sizeof(p.text), "%s/%s", fx->file, name);
  return p;
}

static inline path log_of(const fixture *fx, int n) {
  path p;
  conversation_id id = nth(n);
  (void)snprintf(p.text, sizeof(p.text), "%s/conversations/%s/%s.log", fx->file, id.text + 33,
                 id.text);
  return p;
}

/* Of a session, a script, a note, a tenant. */
static inline path small_file(const fixture *fx, tm_file_what what, const char *a, const char *b) {
  tm_buf name = {0};
  path p;
  tm__file_path(&name, fx->store, &(tm_file_name){what, tm__slice(a), tm__slice(b)});
  (void)snprintf(p.text, sizeof(p.text), "%s", name.ptr);
  tm__buf_free(&name);
  return p;
}

static inline tm_buf content_of(const char *name) {
  tm_buf b = {0};
  int fd = open(name, O_RDONLY);
  assert_true(fd >= 0);
  for (ssize_t n = 1; n > 0;) {
    char *room = tm__buf_room(&b, 65536);
    n = read(fd, room, 65536);
    assert_true(n >= 0);
    b.len += (size_t)n;
  }
  (void)close(fd);
  tm__buf_byte(&b, '\0');
  b.len--;
  return b;
}

static inline void set_content(const char *name, const void *bytes, size_t size) {
  int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, size), size);
  (void)close(fd);
}

static inline void drop_index(const fixture *fx) {
  static const char *const names[] = {"index.db", "index.db-wal", "index.db-shm"};
  for (size_t i = 0; i < 3; i++)
    (void)unlink(beside(fx, names[i]).text);
}

static inline int64_t size_of(const char *name) {
  struct stat st;
  return stat(name, &st) == 0 ? (int64_t)st.st_size : -1;
}

/* What `child` does is left as a process leaves it that dies. */
static inline void in_a_dying_process(fixture *fx, void (*child)(fixture *fx)) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    child(fx);
    (void)kill(getpid(), SIGKILL);
  }
  int how;
  assert_int_equal(waitpid(pid, &how, 0), pid);
  assert_true(WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL);
}

static inline size_t chain_length(fixture *fx, int n, int64_t row) {
  seen s = {0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(n).text), row, false, see_row, &s,
                                   &fx->err));
  return s.count;
}

typedef struct told { /* what inspect found */
  size_t infos, warnings, errors;
  char text[2048];
} told;

static inline void note_finding(void *ud, tm_finding level, const char *text) {
  told *t = ud;
  t->infos += level == TM_FINDING_INFO;
  t->warnings += level == TM_FINDING_WARNING;
  t->errors += level == TM_FINDING_ERROR;
  size_t used = strlen(t->text);
  (void)snprintf(t->text + used, sizeof(t->text) - used, "%s\n", text);
}

static inline told inspect(fixture *fx, bool deep) {
  told t = {0};
  assert_ok(fx, fx->backend->inspect(fx->reader, deep, note_finding, &t, &fx->err));
  return t;
}

#endif
