/* Bodies as a damaged or hostile store could give them: FLAGS and bytes. Reading ends with a body
 * or an error that has a code; what is written of the input comes back, and not when a bit is
 * other. */
#include "persistence/codec.h"
#include "tests/fuzz/must.h"

static const char *const key_text = "q83Wm0m2cMyaGZBjyNKsRRjKJvSaTdZ5Zkdkm0W4yqE=";
static const tm_place place = {.tenant = {"ann", 3},
                               .conversation = {"019a0000-0000-7000-8000-000000000001", 36},
                               .revision = 7,
                               .kind = TM_ROW_TURN};
static tm_codec *codec;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  tm_error err;
  tm_keyring *keys;
  const tm_keyring_options ko = {.current = key_text, .current_name = "key"};
  MUST(tm__keyring_new(&keys, &ko, &err) == TM_OK);
  const tm_codec_options co = {.keys = keys};
  MUST(tm__codec_new(&codec, &co, &err) == TM_OK);
  return 0;
}

static tm_status decode(const tm_stored *body, tm_buf *out, tm_slice *plain) {
  tm_error err = {0};
  tm_status status = tm__codec_decode(codec, &place, body, out, plain, &err);
  MUST(status == TM_OK || status == TM_ENOMEM || (status == TM_ECORRUPT && err.code[0] != '\0'));
  return status;
}

static void read_it(uint32_t flags, tm_slice bytes) {
  tm_buf out = {0};
  tm_slice plain;
  const tm_stored body = {flags, bytes};
  if (decode(&body, &out, &plain) == TM_OK) MUST(plain.len == 0 || plain.ptr != NULL);
  tm__buf_free(&out);
}

static void write_it(tm_slice bytes, bool compress, bool seal, size_t at) {
  tm_buf stored = {0}, out = {0};
  tm_error err;
  tm_stored body;
  tm_slice plain;
  MUST(tm__codec_encode(codec, &place, bytes, compress, seal, &stored, &body, &err) == TM_OK);
  MUST(decode(&body, &out, &plain) == TM_OK && tm__slice_eq(plain, bytes));
  if (seal) {
    stored.ptr[at / 8 % stored.len] ^= (char)(1 << at % 8);
    MUST(decode(&body, &out, &plain) == TM_ECORRUPT);
  }
  tm__buf_free(&stored);
  tm__buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 3) return 0;
  tm_slice bytes = {(const char *)data + 3, size - 3};
  read_it(data[0], bytes);
  size_t at = (size_t)data[1] << 8 | data[2];
  for (int how = 0; how < 4; how++)
    write_it(bytes, how % 2 == 1, how / 2 == 1, at);
  return 0;
}
