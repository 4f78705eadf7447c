/* provoke.c - stands before a few functions in every test program, by --wrap.
 *
 * The constructors of tm_error: each code becomes a line of the file that $TIDEMILL_PROVOKED names,
 * if any, so that `make check` knows which codes tests have really provoked. And functions of the
 * system that hardly ever fail: they do what provoke.h says.
 */
#include "provoke.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#include "core/err.h"

tm_provoke provoke = {.threads = -1};

/* ---- the record ---- */

static int record = -1;

__attribute__((constructor)) static void open_record(void) {
  const char *path = getenv("TIDEMILL_PROVOKED");
  if (path != NULL) record = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

/* Has this process noted the code before? Mistaking two codes for one loses nothing but a line that
 * another program writes. */
static bool is_noted(const char *code) {
  static atomic_uchar seen[4096];
  uint32_t hash = 2166136261U;
  for (const char *c = code; *c != '\0'; c++)
    hash = (hash ^ (unsigned char)*c) * 16777619U;
  return atomic_exchange(&seen[hash % sizeof(seen)], 1) != 0;
}

/* One write for a line: programs and threads share the file. */
void provoke_note(const char *code) {
  char line[64];
  if (record < 0 || is_noted(code)) return;
  int len = snprintf(line, sizeof(line), "%s\n", code);
  if (len > 0 && write(record, line, (size_t)len) != len)
    (void)fprintf(stderr, "the record of provoked codes cannot be written\n");
}

tm_status __real_tm__fail(tm_error *err, tm_status status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
tm_status __wrap_tm__fail(tm_error *err, tm_status status, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

tm_status __wrap_tm__fail(tm_error *err, tm_status status, const char *code, const char *fmt, ...) {
  char message[2 * sizeof(err->message)];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(message, sizeof(message), fmt, ap);
  va_end(ap);
  provoke_note(code);
  return __real_tm__fail(err, status, code, "%s", message);
}

tm_status __real_tm__fail_memory(tm_error *err, const char *what);
tm_status __wrap_tm__fail_memory(tm_error *err, const char *what);

tm_status __wrap_tm__fail_memory(tm_error *err, const char *what) {
  provoke_note("host.memory");
  return __real_tm__fail_memory(err, what);
}

/* ---- what hardly ever happens ---- */

int64_t __real_tm__clock_monotonic_us(void);
int64_t __wrap_tm__clock_monotonic_us(void);

int64_t __wrap_tm__clock_monotonic_us(void) {
  return __real_tm__clock_monotonic_us() + atomic_load(&provoke.hours) * 3600 * 1000 * 1000;
}

int __real_uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *arg);
int __wrap_uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *arg);

int __wrap_uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *arg) {
  if (atomic_load(&provoke.threads) == 0) return UV_EAGAIN;
  if (atomic_load(&provoke.threads) > 0) (void)atomic_fetch_sub(&provoke.threads, 1);
  return __real_uv_thread_create(thread, entry, arg);
}

curl_version_info_data *__real_curl_version_info(CURLversion age);
curl_version_info_data *__wrap_curl_version_info(CURLversion age);

curl_version_info_data *__wrap_curl_version_info(CURLversion age) {
  static curl_version_info_data plain;
  if (!atomic_load(&provoke.plain_curl)) return __real_curl_version_info(age);
  plain = *__real_curl_version_info(age);
  plain.features &= ~CURL_VERSION_THREADSAFE;
  return &plain;
}
