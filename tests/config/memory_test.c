/* memory_test.c - loading fails every allocation once, in turn: each must end in TM_ENOMEM or,
 * where only a message suffers, as it would have; nothing may crash and nothing may stay allocated.
 */
#include "fixture.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_ALLOCATOR 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define OWN_ALLOCATOR 0
#endif
#endif
#ifndef OWN_ALLOCATOR
#define OWN_ALLOCATOR 1
#endif

#if OWN_ALLOCATOR
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);
extern void __libc_free(void *ptr);

static long until_failure = -1; /* -1: none fails */
static long live;

static bool fails(void) {
  if (until_failure < 0) return false;
  return until_failure == 0 ? true : (--until_failure, false);
}

void *malloc(size_t size) {
  void *ptr = fails() ? NULL : __libc_malloc(size);
  live += ptr != NULL;
  return ptr;
}

void *calloc(size_t count, size_t size) {
  void *ptr = fails() ? NULL : __libc_calloc(count, size);
  live += ptr != NULL;
  return ptr;
}

void *realloc(void *old, size_t size) {
  void *ptr = fails() ? NULL : __libc_realloc(old, size);
  live += ptr != NULL && old == NULL;
  return ptr;
}

void free(void *ptr) {
  live -= ptr != NULL;
  __libc_free(ptr);
}

static const char good[] = "server: {listen: \"${HOST:127.0.0.1}:80\", workers: 3}\n"
                           "scripts: [a, \"${HOST:b}\"]\ndocker: {a: [1, {b: c}]}\n"
                           "workflow_persistence: {sqlite: {journal_mode: DELETE}}\n";
static const char bad[] = "servr: 1\nserver: {workers: many, listen: [a]}\nlog: 5\n"
                          "llm: {model: x}\nscripts: [\"${GONE}\"]\n";

/* One load whose allocation number `n` and all later ones fail; false: it needed no more than n. */
static bool load_failing(fixture *f, long n, tm_status expected) {
  tm_config_options o = {.file = f->file, .env_file = f->env_file, .env = f->env, .set = f->set};
  tm_config *config;
  tm_error err = {0};
  long before = live;
  until_failure = n;
  tm_status s = tm__config_load(&config, &o, &err);
  bool failed = until_failure == 0;
  until_failure = -1;
  tm__config_free(config);
  assert_int_equal(live, before);
  if (s != expected && s != TM_ENOMEM) fail_msg("allocation %ld: %s", n, err.message);
  assert_true(s == TM_OK || err.message[0] != '\0');
  return failed || s == TM_ENOMEM;
}

static void sweep(void **state) {
  fixture *f = *state;
  f->env[0] = "AMBIVO_AGENTS_SERVER_LEASE=20";
  f->env[1] = "AMBIVO_AGENTS_WRONG=20";
  f->set[0] = "log.level=debug";
  write_text(f->env_file, "AMBIVO_AGENTS_LOG_FORMAT='json'\n");
  write_text(f->file, good);
  long needed = 0;
  while (load_failing(f, needed, TM_OK)) {
    needed++;
  }
  assert_true(needed > 50);
  write_text(f->file, bad);
  for (needed = 0; load_failing(f, needed, TM_EINVAL);) {
    needed++;
  }
  assert_true(needed > 50);
}

#else
static void sweep(void **state) {
  (void)state;
  skip(); /* the sanitizer owns the allocator */
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {WITH_FIXTURE(sweep)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
