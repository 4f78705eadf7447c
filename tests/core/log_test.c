/* Log lines in both formats; and the clocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/json.h"
#include "core/log.h"

static int64_t fixed(void *ud) {
  return *(int64_t *)ud;
}

static int64_t now = INT64_C(1763820448123);

static void keep(void *ud, const char *line, size_t size) {
  tm_buf *b = ud;
  assert_int_equal(strlen(line), size);
  tm__buf_clear(b);
  tm__buf_add(b, line, size);
}

static tm_log log_to(tm_buf *b, bool json) {
  return (tm_log){
      .sink = keep, .ud = b, .level = TM_LOG_INFO, .json = json, .clock = {fixed, &now}};
}

static void test_text(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, false);
  tm__log(&log, TM_LOG_INFO, "started", "port", "8700", "name", "two words", NULL);
  assert_string_equal(b.ptr, "2025-11-22T14:07:28.123Z info  started port=8700 name=\"two words\"");
  tm__log(&log, TM_LOG_WARNING, "x", "empty", "", "gone", NULL, "after", "a=b", NULL);
  assert_string_equal(b.ptr, "2025-11-22T14:07:28.123Z warning x empty=\"\" after=\"a=b\"");
  tm__buf_free(&b);
}

static void test_one_line_of_utf8(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, false);
  tm__log(&log, TM_LOG_ERROR, "a\nb\x1B[1m\xFF", "k", "x\r\ny\xC3", NULL);
  assert_string_equal(b.ptr, "2025-11-22T14:07:28.123Z error a b [1m\xEF\xBF\xBD "
                             "k=\"x\\r\\ny\xEF\xBF\xBD\"");
  tm__buf_free(&b);
}

/* Names come from scripts too. */
static void test_names_forge_nothing(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, false);
  tm__log(&log, TM_LOG_INFO, "m", "a\nb=c\xFF", "v", NULL);
  assert_string_equal(b.ptr, "2025-11-22T14:07:28.123Z info  m \"a\\nb=c\xEF\xBF\xBD\"=v");
  log.json = true;
  tm__log(&log, TM_LOG_INFO, "m", "\"\xFF", "v", NULL);
  assert_non_null(strstr(b.ptr, ",\"\\\"\xEF\xBF\xBD\":\"v\"}"));
  tm__buf_free(&b);
}

static void test_json(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, true);
  tm__log(&log, TM_LOG_INFO, "say \"hi\"", "k", "x\ny\xFF", "gone", NULL, NULL);
  assert_string_equal(b.ptr,
                      "{\"time\":\"2025-11-22T14:07:28.123Z\",\"level\":\"info\",\"message\":"
                      "\"say \\\"hi\\\"\",\"k\":\"x\\ny\xEF\xBF\xBD\"}");
  json_t *parsed;
  assert_int_equal(tm__json_parse(&parsed, tm__buf_view(&b), 1, NULL), TM_OK);
  json_decref(parsed);
  tm__buf_free(&b);
}

static void test_levels_and_no_sink(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, false);
  tm__log(&log, TM_LOG_DEBUG, "quiet", NULL);
  assert_int_equal(b.len, 0);
  log.sink = NULL;
  tm__log(&log, TM_LOG_ERROR, "nowhere", NULL);
  tm__log(NULL, TM_LOG_ERROR, "nowhere", NULL);
  assert_int_equal(b.len, 0);
  tm__buf_free(&b);
}

static void test_long_value_is_cut(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, true);
  char text[9000];
  memset(text, 'v', sizeof(text));
  text[sizeof(text) - 1] = '\0';
  tm__log(&log, TM_LOG_INFO, "m", "k", text, NULL);
  assert_true(b.len > 2048 && b.len < 2200);
  tm__buf_free(&b);
}

static void test_error(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, false);
  tm_error err;
  tm__fail(&err, TM_EIO, "store.io", "disk gone");
  memcpy(err.step_id, "ask", 4);
  tm__log_error(&log, TM_LOG_ERROR, "commit failed", &err);
  assert_string_equal(b.ptr, "2025-11-22T14:07:28.123Z error commit failed code=store.io "
                             "error=\"disk gone\" step=ask");
  tm__buf_free(&b);
}

static void test_before_1970(void **state) {
  (void)state;
  tm_buf b = {0};
  tm_log log = log_to(&b, false);
  int64_t early = -1;
  log.clock.ud = &early;
  tm__log(&log, TM_LOG_INFO, "m", NULL);
  assert_string_equal(b.ptr, "1969-12-31T23:59:59.999Z info  m");
  tm__buf_free(&b);
}

static void test_clocks(void **state) {
  (void)state;
  tm_clock clock = {fixed, &now};
  assert_true(tm__clock_now(&clock) == now);
  assert_true(tm__clock_now(NULL) > INT64_C(1600000000000));
  assert_true(tm__clock_now(&(tm_clock){0}) > INT64_C(1600000000000));
  int64_t wall = tm__clock_monotonic_us();
  int64_t cpu = tm__clock_thread_cpu_us();
  int64_t spent = 0;
  for (int i = 0; i < 100000000 && spent < 1000; i++) {
    spent = tm__clock_thread_cpu_us() - cpu;
  }
  assert_true(spent >= 1000);
  assert_true(tm__clock_monotonic_us() - wall >= 900);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_text),
      cmocka_unit_test(test_one_line_of_utf8),
      cmocka_unit_test(test_names_forge_nothing),
      cmocka_unit_test(test_json),
      cmocka_unit_test(test_levels_and_no_sink),
      cmocka_unit_test(test_long_value_is_cut),
      cmocka_unit_test(test_error),
      cmocka_unit_test(test_before_1970),
      cmocka_unit_test(test_clocks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
