/* Bodies through the codec and back; and everything that must not come back: altered, moved, too
 * large, plain where it has to be sealed. */
#include "keys.h"

#include <string.h>
#include <time.h>
#include <zstd.h>

#include "core/json.h"
#include "persistence/compress.h"
#include "persistence/seal.h"

static const tm_place row_place = {.tenant = {"ann", 3},
                                   .conversation = {"019a0000-0000-7000-8000-000000000001", 36},
                                   .revision = 7,
                                   .kind = TM_ROW_TURN};
static const tm_place session_place = {
    .tenant = {"ann", 3}, .session = {"s1", 2}, .field = {"user_id", 7}};

#define ROW                                                                                        \
  "{\"messages\":[{\"role\":\"user\",\"seq\":3,\"step_id\":\"ask\",\"text\":\"Where is my "        \
  "parcel, order A1234?\"}],\"runtime\":{\"attempt\":1,\"completed\":4},\"state\":{\"a\":1},"      \
  "\"status\":\"waiting_input\",\"step\":\"ask\",\"wake_at\":0}"

static tm_codec *codec_of(tm_keyring *keys, bool seal, bool accept_plaintext) {
  tm_error err = {0};
  tm_codec *c = NULL;
  const tm_codec_options o = {.keys = keys, .seal = seal, .accept_plaintext = accept_plaintext};
  assert_status(TM_OK, tm__codec_new(&c, &o, &err), &err);
  return c;
}

/* A stored body with bytes of its own. */
typedef struct stored {
  tm_buf bytes;
  tm_stored body;
} stored;

static stored encode(tm_codec *c, const tm_place *at, tm_slice plain, bool compress, bool seal) {
  tm_error err = {0};
  stored s = {0};
  tm_stored body;
  tm_buf out = {0};
  assert_status(TM_OK, tm__codec_encode(c, at, plain, compress, seal, &out, &body, &err), &err);
  tm__buf_slice(&s.bytes, body.bytes);
  s.body = (tm_stored){body.flags, tm__buf_view(&s.bytes)};
  tm__buf_free(&out);
  return s;
}

static tm_status decode(tm_codec *c, const tm_place *at, const tm_stored *body, tm_error *err) {
  tm_buf out = {0};
  tm_slice plain;
  *err = (tm_error){0};
  tm_status status = tm__codec_decode(c, at, body, &out, &plain, err);
  tm__buf_free(&out);
  return status;
}

static void check_back(tm_codec *c, const tm_place *at, const tm_stored *body, tm_slice plain) {
  tm_error err = {0};
  tm_buf out = {0};
  tm_slice back;
  assert_status(TM_OK, tm__codec_decode(c, at, body, &out, &back, &err), &err);
  assert_int_equal(back.len, plain.len);
  assert_true(tm__slice_eq(back, plain));
  tm__buf_free(&out);
}

/* ---- there and back ---- */

static void flags_say_what_was_done(void **state) {
  (void)state;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, false, false);
  const tm_slice row = TM_S(ROW);
  static const uint32_t expected[] = {0, TM_BODY_ZSTD, TM_BODY_SEALED,
                                      TM_BODY_ZSTD | TM_BODY_SEALED};
  for (unsigned i = 0; i < 4; i++) {
    stored s = encode(c, &row_place, row, i % 2 == 1, i / 2 == 1);
    assert_int_equal(s.body.flags, expected[i]);
    if (i > 0) assert_null(memmem(s.bytes.ptr, s.bytes.len, "A1234?\"}]", 9));
    if (i % 2 == 1) assert_true(s.bytes.len < row.len);
    check_back(c, &row_place, &s.body, row);
    tm__buf_free(&s.bytes);
  }
  stored session = encode(c, &session_place, TM_S(ROW), true, true);
  assert_int_equal(session.body.flags, TM_BODY_SEALED);
  check_back(c, &session_place, &session.body, TM_S(ROW));
  tm__buf_free(&session.bytes);
  stored small = encode(c, &row_place, TM_S("{\"x\":1}"), true, false);
  assert_int_equal(small.body.flags, 0);
  tm__buf_free(&small.bytes);
  tm__codec_free(c);
  tm__keyring_free(k);
}

static uint32_t next_random(uint32_t *seed) {
  *seed = *seed * 1664525U + 1013904223U;
  return *seed >> 8;
}

/* Rows that are alike, text that repeats, and noise. */
static void random_body(tm_buf *out, uint32_t *seed) {
  tm__buf_clear(out);
  size_t len = (size_t)1 << next_random(seed) % 18;
  len += next_random(seed) % len;
  uint32_t kind = next_random(seed) % 3;
  while (out->len < len) {
    if (kind == 0) tm__buf_text(out, ROW);
    if (kind == 1) tm__buf_printf(out, "%u,", next_random(seed) % 20);
    if (kind == 2) tm__buf_byte(out, (char)next_random(seed));
  }
  out->len = len;
}

static void any_body_comes_back(void **state) {
  (void)state;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, false, false);
  uint32_t start = (uint32_t)time(NULL), seed = start;
  const char *given = getenv("TIDEMILL_SEED");
  if (given != NULL) start = seed = (uint32_t)strtoul(given, NULL, 10);
  print_message("seed %u\n", start);
  int rounds = getenv("TIDEMILL_NIGHTLY") != NULL ? 20000 : 500;
  tm_buf body = {0};
  for (int i = 0; i < rounds; i++) {
    random_body(&body, &seed);
    tm_place at = row_place;
    at.revision = (int64_t)((uint64_t)next_random(&seed) << 20);
    at.kind = (tm_row_kind)(1 + next_random(&seed) % 6);
    uint32_t how = next_random(&seed);
    stored s = encode(c, &at, tm__buf_view(&body), how % 2 == 1, how % 4 > 1);
    assert_true(s.bytes.len <= body.len + TM_SEAL_OVERHEAD);
    check_back(c, &at, &s.body, tm__buf_view(&body));
    tm__buf_free(&s.bytes);
  }
  tm__buf_free(&body);
  tm__codec_free(c);
  tm__keyring_free(k);
}

static void the_same_body_is_never_sealed_alike(void **state) {
  (void)state;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, true, false);
  stored a = encode(c, &row_place, TM_S(ROW), false, false);
  stored b = encode(c, &row_place, TM_S(ROW), false, false);
  assert_int_equal(a.bytes.len, b.bytes.len);
  assert_memory_not_equal(a.bytes.ptr + TM_SEAL_HEAD, b.bytes.ptr + TM_SEAL_HEAD, 24);
  assert_memory_not_equal(a.bytes.ptr + TM_SEAL_HEAD + 24, b.bytes.ptr + TM_SEAL_HEAD + 24, 64);
  tm__buf_free(&a.bytes);
  tm__buf_free(&b.bytes);
  tm__codec_free(c);
  tm__keyring_free(k);
}

/* What an older program wrote is read for ever. */
static void the_format_stands(void **state) {
  (void)state;
  static const char *const written[] = {
#include "codec_written.def"
  };
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, false, false);
  for (uint32_t flags = 1; flags <= 3; flags++) {
    const char *hex = written[flags - 1];
    tm_buf bytes = {0};
    for (size_t i = 0; hex[i] != '\0'; i += 2) {
      const char pair[3] = {hex[i], hex[i + 1], '\0'};
      tm__buf_byte(&bytes, (char)strtoul(pair, NULL, 16));
    }
    const tm_stored body = {flags, tm__buf_view(&bytes)};
    check_back(c, &row_place, &body, TM_S(ROW));
    tm__buf_free(&bytes);
  }
  tm__codec_free(c);
  tm__keyring_free(k);
}

/* ---- what must not come back ---- */

static void check_forged(tm_codec *c, const tm_place *at, const tm_stored *body) {
  tm_error err;
  assert_int_equal(decode(c, at, body, &err), TM_ECORRUPT);
  assert_string_equal(err.code, "seal.forged");
}

static void every_altered_bit_is_found(void **state) {
  (void)state;
  tm_error err;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, false, false);
  stored s = encode(c, &row_place, TM_S(ROW), true, true);
  for (size_t bit = 0; bit < 8 * s.bytes.len; bit++) {
    s.bytes.ptr[bit / 8] ^= (char)(1 << bit % 8);
    assert_int_equal(decode(c, &row_place, &s.body, &err), TM_ECORRUPT);
    bool id = bit >= 8 && bit < (size_t)8 * TM_SEAL_HEAD;
    const char *code = bit > 0 && bit < 8 ? "journal.newer" : "seal.forged";
    if (bit == 7 || bit == 0) code = "seal.forged"; /* a version below ours */
    assert_string_equal(err.code, id ? "seal.key_unknown" : code);
    assert_non_null(strstr(err.message, "revision 7 of conversation 019a"));
    s.bytes.ptr[bit / 8] ^= (char)(1 << bit % 8);
  }
  check_back(c, &row_place, &s.body, TM_S(ROW));
  for (uint32_t flags = 1; flags < 32; flags++) {
    const tm_stored other = {flags, s.body.bytes};
    if (flags == s.body.flags) continue;
    assert_int_equal(decode(c, &row_place, &other, &err), TM_ECORRUPT);
  }
  tm__buf_free(&s.bytes);
  tm__codec_free(c);
  tm__keyring_free(k);
}

static void a_piece_of_it_is_nothing(void **state) {
  (void)state;
  tm_error err;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, false, false);
  for (int sealed = 0; sealed < 2; sealed++) {
    stored s = encode(c, &row_place, TM_S(ROW), true, sealed == 1);
    for (size_t len = 0; len < s.bytes.len; len++) {
      const tm_stored part = {s.body.flags, {s.bytes.ptr, len}};
      assert_int_equal(decode(c, &row_place, &part, &err), TM_ECORRUPT);
      assert_string_equal(err.code, sealed == 1 ? "seal.forged" : "journal.damaged");
    }
    tm__buf_byte(&s.bytes, 'x');
    const tm_stored more = {s.body.flags, tm__buf_view(&s.bytes)};
    assert_int_equal(decode(c, &row_place, &more, &err), TM_ECORRUPT);
    tm__buf_free(&s.bytes);
  }
  tm__codec_free(c);
  tm__keyring_free(k);
}

static void a_body_opens_only_where_it_belongs(void **state) {
  (void)state;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *c = codec_of(k, false, false);
  stored s = encode(c, &row_place, TM_S(ROW), false, true);
  tm_place at = row_place;
  at.tenant = TM_S("bob");
  check_forged(c, &at, &s.body);
  at = row_place;
  at.conversation = TM_S("019a0000-0000-7000-8000-000000000002");
  check_forged(c, &at, &s.body);
  at = row_place;
  at.revision = 6;
  check_forged(c, &at, &s.body);
  at = row_place;
  at.kind = TM_ROW_UNDO;
  check_forged(c, &at, &s.body);
  at = row_place;
  at.tenant = TM_S("ann\0"); /* what stands on a border belongs to one side of it */
  check_forged(c, &at, &s.body);
  check_forged(c, &session_place, &s.body);
  for (int index = 0; index <= TM_ROW_MIGRATE; index++) { /* an event of that revision */
    at = row_place;
    at.event = true;
    at.index = index;
    check_forged(c, &at, &s.body);
  }
  tm__buf_free(&s.bytes);

  at = row_place;
  at.event = true;
  at.index = TM_ROW_TURN;
  s = encode(c, &at, TM_S(ROW), true, true);
  assert_int_equal(s.body.flags, TM_BODY_SEALED);
  check_back(c, &at, &s.body, TM_S(ROW));
  check_forged(c, &row_place, &s.body);
  at.index++;
  check_forged(c, &at, &s.body);
  tm__buf_free(&s.bytes);

  s = encode(c, &session_place, TM_S("ann@example.org"), false, true);
  at = session_place;
  at.field = TM_S("metadata");
  check_forged(c, &at, &s.body);
  at = session_place;
  at.session = TM_S("s2");
  check_forged(c, &at, &s.body);
  at = session_place;
  at.tenant = TM_S("anns");
  at.session = TM_S("1");
  check_forged(c, &at, &s.body);
  tm__buf_free(&s.bytes);
  tm__codec_free(c);
  tm__keyring_free(k);
}

static void another_key_opens_nothing(void **state) {
  (void)state;
  tm_error err;
  tm_keyring *a = keys_of(KEY_A, NULL, NULL), *b = keys_of(KEY_B, NULL, NULL),
             *both = keys_of(KEY_B, KEY_A, NULL);
  tm_codec *writer = codec_of(a, false, false), *stranger = codec_of(b, false, false),
           *reader = codec_of(both, false, false), *none = codec_of(NULL, false, false);
  stored s = encode(writer, &row_place, TM_S(ROW), true, true);
  assert_int_equal(decode(stranger, &row_place, &s.body, &err), TM_ECORRUPT);
  assert_string_equal(err.code, "seal.key_unknown");
  assert_non_null(strstr(err.message, "398a0217d856854e"));
  assert_int_equal(decode(none, &row_place, &s.body, &err), TM_ECORRUPT);
  assert_string_equal(err.code, "seal.key_unknown");
  check_back(reader, &row_place, &s.body, TM_S(ROW));

  stored other = encode(reader, &row_place, TM_S(ROW), true, true);
  memcpy(other.bytes.ptr + 1, s.bytes.ptr + 1, TM_SEAL_ID_BYTES); /* the id of the wrong key */
  check_forged(reader, &row_place, &other.body);
  bool current;
  assert_status(TM_OK, tm__codec_is_current(reader, TM_S("ann"), &s.body, &current, &err), &err);
  assert_false(current);
  assert_status(TM_OK, tm__codec_is_current(writer, TM_S("ann"), &s.body, &current, &err), &err);
  assert_true(current);
  tm__buf_free(&s.bytes);
  tm__buf_free(&other.bytes);
  tm_codec *codecs[] = {writer, stranger, reader, none};
  for (size_t i = 0; i < 4; i++)
    tm__codec_free(codecs[i]);
  tm__keyring_free(a);
  tm__keyring_free(b);
  tm__keyring_free(both);
}

static void plaintext_is_refused_where_it_was_to_be_sealed(void **state) {
  (void)state;
  tm_error err;
  tm_keyring *k = keys_of(KEY_A, NULL, NULL);
  tm_codec *lax = codec_of(k, false, false), *strict = codec_of(k, true, false),
           *moving = codec_of(k, true, true);
  bool current;
  for (int compress = 0; compress < 2; compress++) {
    stored s = encode(lax, &row_place, TM_S(ROW), compress == 1, false);
    check_back(lax, &row_place, &s.body, TM_S(ROW));
    check_back(moving, &row_place, &s.body, TM_S(ROW));
    assert_int_equal(decode(strict, &row_place, &s.body, &err), TM_ECORRUPT);
    assert_string_equal(err.code, "seal.plaintext");
    assert_non_null(strstr(err.message, "accept_plaintext"));
    assert_status(TM_OK, tm__codec_is_current(lax, TM_S("ann"), &s.body, &current, &err), &err);
    assert_true(current);
    assert_status(TM_OK, tm__codec_is_current(moving, TM_S("ann"), &s.body, &current, &err), &err);
    assert_false(current);
    tm__buf_free(&s.bytes);
  }
  stored s = encode(strict, &row_place, TM_S(ROW), false, false);
  assert_int_equal(s.body.flags, TM_BODY_SEALED);
  tm__buf_free(&s.bytes);
  tm__codec_free(lax);
  tm__codec_free(strict);
  tm__codec_free(moving);
  tm__keyring_free(k);
}

static void sealing_needs_a_key(void **state) {
  (void)state;
  tm_error err = {0};
  tm_codec *c = codec_of(NULL, false, false);
  tm_buf out = {0};
  tm_stored body;
  assert_int_equal(tm__codec_encode(c, &row_place, TM_S(ROW), true, true, &out, &body, &err),
                   TM_EUNAVAILABLE);
  assert_string_equal(err.code, "seal.no_key");
  tm__buf_free(&out);
  tm__codec_free(c);
}

static void newer_programs_are_recognised(void **state) {
  (void)state;
  tm_error err;
  tm_codec *c = codec_of(NULL, false, false);
  stored s = encode(c, &row_place, TM_S(ROW), true, false);
  const tm_stored unknown = {TM_BODY_ZSTD | 4, s.body.bytes};
  assert_int_equal(decode(c, &row_place, &unknown, &err), TM_ECORRUPT);
  assert_string_equal(err.code, "journal.newer");
  s.bytes.ptr[0]++; /* another dictionary */
  assert_int_equal(decode(c, &row_place, &s.body, &err), TM_ECORRUPT);
  assert_string_equal(err.code, "journal.newer");
  check_back(NULL, &row_place, &(tm_stored){0, TM_S(ROW)}, TM_S(ROW));
  assert_int_equal(decode(NULL, &row_place, &s.body, &err), TM_ECORRUPT);
  assert_string_equal(err.code, "journal.newer");
  tm__buf_free(&s.bytes);
  tm__codec_free(c);
}

/* ---- bombs ---- */

static tm_status expand(const void *frame, size_t len, size_t max) {
  tm_press *p = tm__press_new();
  tm_buf bytes = {0}, out = {0};
  tm__buf_byte(&bytes, 1);
  tm__buf_add(&bytes, frame, len);
  tm_status status = tm__decompress(p, &out, tm__buf_view(&bytes), max);
  if (status != TM_OK) assert_int_equal(out.len, 0);
  assert_true(out.cap <= max + 64);
  tm__buf_free(&bytes);
  tm__buf_free(&out);
  tm__press_free(p);
  return status;
}

static void bombs_are_refused(void **state) {
  (void)state;
  enum { LARGE = 1 << 20 };
  char *zeros = calloc(1, LARGE), *frame = malloc(2 * LARGE);
  ZSTD_CCtx *cc = ZSTD_createCCtx();
  size_t n = ZSTD_compress2(cc, frame, LARGE, zeros, LARGE);
  assert_int_equal(expand(frame, n, LARGE), TM_OK);
  assert_int_equal(expand(frame, n, LARGE - 1), TM_ECORRUPT); /* more than is allowed */
  memcpy(frame + n, frame, n);
  assert_int_equal(expand(frame, 2 * n, 4 * LARGE), TM_ECORRUPT); /* two frames */
  assert_int_equal(expand("\x50\x2A\x4D\x18\x04\0\0\0abcd", 12, LARGE), TM_ECORRUPT); /* skipped */
  assert_int_equal(expand("", 0, LARGE), TM_ECORRUPT);

  /* A frame that says less than it holds: the size is the byte behind magic and descriptor. */
  n = ZSTD_compress2(cc, frame, LARGE, zeros, 200);
  assert_int_equal((unsigned char)frame[5], 200);
  assert_int_equal(expand(frame, n, LARGE), TM_OK);
  frame[5] = 100;
  assert_int_equal(expand(frame, n, LARGE), TM_ECORRUPT);

  /* One that does not say how much it holds. */
  (void)ZSTD_CCtx_setParameter(cc, ZSTD_c_contentSizeFlag, 0);
  n = ZSTD_compress2(cc, frame, LARGE, zeros, LARGE);
  assert_int_equal(expand(frame, n, LARGE), TM_ECORRUPT);
  (void)ZSTD_freeCCtx(cc);
  free(zeros);
  free(frame);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(flags_say_what_was_done),
      cmocka_unit_test(any_body_comes_back),
      cmocka_unit_test(the_same_body_is_never_sealed_alike),
      cmocka_unit_test(the_format_stands),
      cmocka_unit_test(every_altered_bit_is_found),
      cmocka_unit_test(a_piece_of_it_is_nothing),
      cmocka_unit_test(a_body_opens_only_where_it_belongs),
      cmocka_unit_test(another_key_opens_nothing),
      cmocka_unit_test(plaintext_is_refused_where_it_was_to_be_sealed),
      cmocka_unit_test(sealing_needs_a_key),
      cmocka_unit_test(newer_programs_are_recognised),
      cmocka_unit_test(bombs_are_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
