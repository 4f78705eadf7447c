/* Exact JSON from the Lua stack: what is kept, what is refused and where, and what bounds it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/bind/fixture.h"

static tm_vm *vm;
static tm_buf out;

static int set_up(void **state) {
  (void)state;
  tm_vm_options o = fixture_options();
  o.limits.memory = 64 << 20;
  o.limits.step_memory = 64 << 20;
  o.limits.cpu_slice_ms = 2000;
  return tm__vm_new(&vm, &o, NULL) == TM_OK ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  tm__vm_free(vm);
  tm__buf_free(&out);
  return 0;
}

/* The chunk sees `json` and `null`. */
static const char *run_json(const char *code) {
  char full[2048];
  tm_error err = {0};
  (void)snprintf(full, sizeof(full), "local json = require 'host.json' local null = json.null %s",
                 code);
  tm_status st = run_code(vm, full, &out, &err);
  if (st != TM_OK) print_message("%s\n-> %s\n", code, err.message);
  assert_int_equal(st, TM_OK);
  return out.ptr;
}

static void expect_text(const char *value, const char *text) {
  char code[1024];
  (void)snprintf(code, sizeof(code), "return assert(json.encode(%s))", value);
  assert_string_equal(run_json(code), text);
}

/* Outside of Lua nothing counts it: what a large value took is given back with its entry. */
static void test_buffers_are_not_kept(void **state) {
  (void)state;
  assert_string_equal(run_json("local t = {} for i = 1, 8000 do t['k' .. i] = ('x'):rep(100) end"
                               " return tostring(#json.encode(t))"),
                      "886894");
  assert_in_range(vm->json.text.cap, 0, 64 << 10);
  assert_in_range(vm->json.key_cap * sizeof(*vm->json.keys), 0, 64 << 10);
  tm_error err = {0};
  tm_status st = run_code(vm,
                          "local json = require 'host.json' local s = '[' .. ('[1],'):rep(1e5)"
                          " .. '1]' local kept = {} while true do kept[#kept + 1] ="
                          " json.decode(s) end",
                          &out, &err);
  assert_int_equal(st, TM_ELIMIT);
  assert_null(vm->json.tree);
  expect_text("{ a = 1 }", "{\"a\":1}");
}

static void expect_refusal(const char *value, const char *error_code, const char *message) {
  char code[1024];
  (void)snprintf(code, sizeof(code),
                 "local t, e = json.encode(%s) local ok, e2 = json.check(%s)"
                 " assert(t == nil and ok == nil and e2.code == e.code and not e.retryable)"
                 " return e.code .. '|' .. tostring(e)",
                 value, value);
  const char *got = run_json(code);
  char want[512];
  (void)snprintf(want, sizeof(want), "%s|%s", error_code, message);
  assert_string_equal(got, want);
}

static void test_scalars(void **state) {
  (void)state;
  expect_text("1", "1");
  expect_text("-0", "0");
  expect_text("-0.0", "-0.0");
  expect_text("1.0", "1.0");
  expect_text("0.1", "0.1");
  expect_text("1e300", "1e+300");
  expect_text("2^53", "9007199254740992.0");
  expect_text("math.maxinteger", "9223372036854775807");
  expect_text("math.mininteger", "-9223372036854775808");
  expect_text("5e-324", "4.94065645841247e-324");
  expect_text("true", "true");
  expect_text("false", "false");
  expect_text("null", "null");
  expect_text("''", "\"\"");
  expect_text("'a\\0b\\n\\\"\\\\é\\u{1F600}'", "\"a\\u0000b\\n\\\"\\\\é😀\"");
  expect_text("json.raw '{ \"a\" : 1 }'", "{ \"a\" : 1 }");
}

static void test_tables(void **state) {
  (void)state;
  expect_text("{}", "{}");
  expect_text("json.array {}", "[]");
  expect_text("json.array()", "[]");
  expect_text("{ 1, 2, 3 }", "[1,2,3]");
  expect_text("{ [2] = 'b', [1] = 'a' }", "[\"a\",\"b\"]");
  expect_text("{ [1.0] = 1 }", "[1]");
  expect_text("{ a = {}, b = json.array {}, c = { null, {} } }",
              "{\"a\":{},\"b\":[],\"c\":[null,{}]}");
  expect_text("{ b = 1, a = 2, ['a!'] = 3, A = 4, [''] = 5, ['10'] = 6, ['9'] = 7 }",
              "{\"\":5,\"10\":6,\"9\":7,\"A\":4,\"a\":2,\"a!\":3,\"b\":1}");
  expect_text("(function() local t = {} for i = 20, 1, -1 do t[string.char(64 + i)] = i end"
              " return t end)()",
              "{\"A\":1,\"B\":2,\"C\":3,\"D\":4,\"E\":5,\"F\":6,\"G\":7,\"H\":8,\"I\":9,\"J\":10,"
              "\"K\":11,\"L\":12,\"M\":13,\"N\":14,\"O\":15,\"P\":16,\"Q\":17,\"R\":18,\"S\":19,"
              "\"T\":20}");
  expect_text("setmetatable({ 1 }, { __len = error, __eq = error, __tostring = error })", "[1]");
}

static void test_refusals(void **state) {
  (void)state;
  expect_refusal("print or error", "json.value", "value: a function cannot be kept");
  expect_refusal("{ a = { b = coroutine.create(error) } }", "json.value",
                 "value.a.b: a thread cannot be kept");
  expect_refusal("{ cart = { 1, 2, { price = 0/0 } } }", "json.value",
                 "value.cart[3].price: NaN cannot be kept");
  expect_refusal("{ a = setmetatable({}, { __index = { b = 1 } }) }", "json.value",
                 "value.a: a table whose metatable has __index or __pairs, such as an object or a "
                 "read-only view, cannot be kept; copy what you need of it");
  expect_refusal("setmetatable({ 1 }, { __pairs = error })", "json.value",
                 "value: a table whose metatable has __index or __pairs, such as an object or a "
                 "read-only view, cannot be kept; copy what you need of it");
  expect_refusal("{ 1, -math.huge }", "json.value", "value[2]: an infinite number cannot be kept");
  expect_refusal("{ t = '\\xff' }", "json.value",
                 "value.t: text that is not valid UTF-8 cannot be kept");
  expect_refusal("'\\u{D800}'", "json.value", "value: text that is not valid UTF-8 cannot be kept");
  expect_refusal("{ x = { ['\\xc0\\x80'] = 1 } }", "json.key",
                 "value.x: a key that is not valid UTF-8 cannot be kept");
  expect_refusal("{ ['a\\0b'] = 1 }", "json.key", "value: a key with a NUL byte cannot be kept");
  expect_refusal("{ [true] = 1 }", "json.key",
                 "value: a key that is a boolean cannot be kept; keys are text");
  expect_refusal("{ [1.5] = 1 }", "json.key",
                 "value: a key that is a number cannot be kept; keys are text");
  expect_refusal("{ [0] = 1 }", "json.key",
                 "value: a key that is a number cannot be kept; keys are text");
  expect_refusal("{ a = { 1, x = 2 } }", "json.value",
                 "value.a: a table that is both array and object cannot be kept");
  expect_refusal("{ 1, [0] = 2 }", "json.value",
                 "value: a table that is both array and object cannot be kept");
  expect_refusal("json.array { x = 1 }", "json.value",
                 "value: a table that is both array and object cannot be kept");
  expect_refusal("{ a = { 1, nil, 3 } }", "json.value",
                 "value.a: an array with holes cannot be kept; use tm.null for what is absent");
  expect_refusal("{ [1000000] = 1 }", "json.value",
                 "value: an array with holes cannot be kept; use tm.null for what is absent");
}

static void test_depth_and_circles(void **state) {
  (void)state;
  assert_string_equal(run_json("local t = 1 for i = 1, 64 do t = { t } end"
                               " return json.encode(json.decode(json.encode(t))) ~= nil"),
                      "true");
  assert_string_equal(run_json("local t = 1 for i = 1, 65 do t = { t } end"
                               " return select(2, json.encode(t)).code"),
                      "json.depth");
  assert_string_equal(run_json("local t = {} t.t = t return select(2, json.encode(t)).code"),
                      "json.depth");
  assert_string_equal(run_json("local a, b = {}, {} a.b, b[1] = b, a local s = json.encode { a }"
                               " return s == nil"),
                      "true");
  assert_string_equal(run_json("local s = { 1 } return json.encode { a = s, b = s }"),
                      "{\"a\":[1],\"b\":[1]}"); /* shared is no circle */
}

static void test_size(void **state) {
  (void)state;
  assert_string_equal(run_json("local t = {} for i = 1, 60 do t = { t, t } end"
                               " return select(2, json.encode(t)).code"),
                      "json.too_large");
  assert_string_equal(run_json("local s = ('x'):rep(3 << 20)"
                               " return select(2, json.encode { s, s, s }).code"),
                      "json.too_large");
  assert_string_equal(run_json("return select(2, json.encode(('x'):rep(9 << 20))).code"),
                      "json.too_large");
  assert_string_equal(run_json("local t = {} for i = 1, 30000 do t['k' .. i] = i end"
                               " local s = json.encode(t) return #s"),
                      "427789");
}

static void test_decode(void **state) {
  (void)state;
  assert_string_equal(run_json("local t = json.decode '{\"a\":[1,2.0,null],\"b\":{}}'"
                               " return math.type(t.a[1]) .. math.type(t.a[2]) .. tostring(t.a[3])"
                               " .. tostring(json.is_array(t.a)) .. tostring(json.is_array(t.b))"),
                      "integerfloatnulltruefalse");
  static const char *const bad[] = {"",    "{",       "[1,]",        "{\"a\":1,\"a\":2}",
                                    "nul", "1 2",     "[NaN]",       "{\"a\\u0000b\":1}",
                                    "'x'", "[1e999]", "\"\\ud800\"", "99999999999999999999"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    char code[256];
    (void)snprintf(code, sizeof(code), "local v, e = json.decode [==[%s]==] return e.code", bad[i]);
    assert_string_equal(run_json(code), "json.invalid");
  }
  assert_string_equal(
      run_json("return select(2, json.decode(('['):rep(65) .. (']'):rep(65))).code"), "json.depth");
  assert_string_equal(run_json("return select(2, json.decode '\"\\xff\"').code"), "json.invalid");
  assert_string_equal(run_json("return #json.decode('[1,2]', 2) == 2 and"
                               " select(2, json.decode('[1,2,3]', 2)).code"),
                      "json.too_many");
  assert_string_equal(run_json("return #json.decode('[' .. ('1,'):rep(99999) .. '1]')"), "100000");
}

static void test_marks_are_locked(void **state) {
  (void)state;
  assert_string_equal(run_json("local a = json.array() return tostring(getmetatable(a)) .. "
                               "tostring(pcall(setmetatable, a, nil))"),
                      "falsefalse");
  assert_string_equal(run_json("return pcall(json.array, setmetatable({}, {}))"), "false");
  assert_string_equal(run_json("local a = json.array { 1 } return json.array(a) == a"), "true");
  assert_string_equal(run_json("return tostring(getmetatable(null)) .. tostring(null)"),
                      "falsenull");
  assert_string_equal(run_json("return getmetatable(json.raw '1')"), "false");
  assert_string_equal(run_json("return pcall(json.encode) or pcall(json.decode, {}) or "
                               "pcall(json.raw, {}) or pcall(json.array, 1)"),
                      "false");
}

static void test_round_trip_of_random_values(void **state) {
  (void)state;
  assert_string_equal(
      run_json(
          "local seed = 42 local function random(n) seed = (seed * 1103515245 + 12345) & "
          "0x7fffffff return (seed >> 8) % n end "
          "local function value(depth) local k = random(depth > 4 and 5 or 7) "
          "if k == 0 then return random(1 << 22) - (1 << 21) "
          "elseif k == 1 then return (random(1 << 22) - 1000) / (random(1000) + 1) "
          "elseif k == 2 then return ('aé\\n\\0\"'):rep(random(4)) "
          "elseif k == 3 then return random(2) == 0 elseif k == 4 then return null end "
          "local t = k == 5 and json.array() or {} "
          "for i = 1, random(6) do t[k == 5 and i or 'k' .. random(99)] = value(depth + 1) end "
          "return t end "
          "for i = 1, 2000 do local s = assert(json.encode(value(1))) "
          "local again = assert(json.encode(json.decode(s))) assert(s == again, s) end "
          "return 'same'"),
      "same");
}

/* ---- what the journal kept ---- */

static const char *const kept[] = {"{}",
                                   "[]",
                                   "null",
                                   "true",
                                   "\"\"",
                                   "-1",
                                   "1.5",
                                   "-0.0",
                                   "1e+300",
                                   "9223372036854775807",
                                   "-9223372036854775808",
                                   "4.94065645841247e-324",
                                   "[[],{},[[]]]",
                                   "{\"\":{\"a\":[]}}",
                                   "[1,2.0,null,true,false,\"x\"]",
                                   "{\"a\\n\\\"\":\"\\u0000é\\\\\",\"b\":[{\"c\":1},{}]}",
                                   "{\"]\":\"}\",\"{\":\"[\"}"};
static const char *const damaged[] = {"",
                                      "{",
                                      "{\"a\":1",
                                      "{\"a\":1]",
                                      "{\"a\":1,\"b\"",
                                      "{\"a\":1,\"b\":}",
                                      "[1",
                                      "[1,",
                                      "[1}",
                                      "[1]x",
                                      "{\"a\":1}x",
                                      "{a:1}",
                                      "[tru]",
                                      "[0x10]",
                                      "[1-]",
                                      "[nan]",
                                      "\"a",
                                      "\"\\x\"",
                                      "[--1]",
                                      "{\"a\":1,\"a\":",
                                      "[1e5e5]",
                                      "{\"a\"1}",
                                      "[\"a]",
                                      "\"a",
                                      "1x",
                                      "nul"};

static void test_restore(void **state) {
  (void)state;
  tm_vm own = {0};
  tm_buf text = {0};
  tm_error err;
  lua_State *L = luaL_newstate();
  assert_non_null(L);
  tm__vm_adopt(&own, L);
  tm__json_open(L);
  for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
    assert_int_equal(tm__json_restore(L, tm__slice(kept[i]), &err), TM_OK);
    tm__buf_clear(&text);
    assert_true(tm__json_encode(L, -1, "value", false, &text, &err));
    assert_string_equal(text.ptr, kept[i]);
  }
  for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
    lua_settop(L, 0);
    if (tm__json_restore(L, tm__slice(damaged[i]), &err) == TM_OK) fail_msg("%s", damaged[i]);
    assert_int_equal(err.status, TM_EINVAL);
    assert_int_equal(lua_gettop(L), 0);
  }
  lua_close(L);
  tm__vm_release(&own);
  tm__buf_free(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_buffers_are_not_kept),
      cmocka_unit_test(test_scalars),
      cmocka_unit_test(test_tables),
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_depth_and_circles),
      cmocka_unit_test(test_size),
      cmocka_unit_test(test_decode),
      cmocka_unit_test(test_marks_are_locked),
      cmocka_unit_test(test_round_trip_of_random_values),
      cmocka_unit_test(test_restore),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
