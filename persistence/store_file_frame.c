/* store_file_frame.c - how a commit lies in a conversation's log, and the small files.
 *
 * A log begins with a line that says whose it is. Each commit appends a frame: one line of JSON
 * with the head as it is then and what is said about the row, the row's body as it is (a line of
 * JSON, when it is neither compressed nor sealed), and a line with the frame's length and checksum,
 * so that the newest head is found from the end. The checksum covers the conversation and the
 * place: a frame that was moved or copied is not taken for another. A row's id is where its frame
 * begins.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "persistence/store_file.h"

/* {"frame":"0000000456", ... {"sum":"<32 hex digits>","frame":"0000000456"} and a newline */
#define PREFIX    "{\"frame\":\""
#define DIGITS    10
#define TRAILER   64
#define FIRST     4096 /* most frames are read at once */
#define SIZE_MAX_ ((int64_t)TM_ROW_MAX + (1 << 20))

static const char *const kinds[] = {
    [TM_ROW_BEGIN] = "begin", [TM_ROW_CALL] = "call", [TM_ROW_TURN] = "turn",
    [TM_ROW_UNDO] = "undo",   [TM_ROW_FORK] = "fork", [TM_ROW_MIGRATE] = "migrate",
};
#define KIND_COUNT (sizeof(kinds) / sizeof(kinds[0]))

/* ---- writing ---- */

void tm__file_log_begin(tm_buf *b, tm_slice id) {
  tm__buf_text(b, "{\"tidemill\":\"conversation\",\"format\":1,\"id\":");
  if (tm__utf8_valid(id))
    tm__json_string(b, id);
  else
    tm__buf_text(b, "null");
  tm__buf_text(b, "}\n");
}

static void sum_hex(char out[2 * TM_FILE_SUM + 1], tm_slice id, int64_t at, tm_slice bytes) {
  unsigned char sum[TM_FILE_SUM];
  char place[32];
  int n = snprintf(place, sizeof(place), " %lld ", (long long)at);
  tm__file_sum(sum, (const tm_slice[]){id, {place, (size_t)n}, bytes}, 3);
  sodium_bin2hex(out, 2 * TM_FILE_SUM + 1, sum, sizeof(sum));
}

static void encode_row(tm_buf *b, const tm_row *row) {
  tm__json_key(b, "row");
  tm__buf_byte(b, '{');
  if (row->id != 0) tm__json_member_int(b, "id", row->id);
  tm__json_member_text(b, "kind", kinds[row->kind]);
  tm__json_member_int(b, "revision", row->revision);
  if (row->parent != 0) tm__json_member_int(b, "parent", row->parent);
  if (row->base != 0) tm__json_member_int(b, "base", row->base);
  tm__json_member_int(b, "created", row->created);
  if (row->checkpoint) tm__json_member_bool(b, "checkpoint", true);
  if (row->flags != 0) tm__json_member_int(b, "flags", row->flags);
  tm__json_member_int(b, "bytes", (int64_t)row->body.len);
  tm__buf_byte(b, '}');
}

/* Blanks up to where the last line must begin, if `size` says so. */
static void pad(tm_buf *b, size_t begun, int64_t size) {
  for (int64_t n = size - (int64_t)(b->len - begun) - 1 - TRAILER; n > 0; n--)
    tm__buf_byte(b, ' ');
  tm__buf_byte(b, '\n');
}

/* Now that its length is known. */
static void seal(tm_buf *b, size_t begun, tm_slice id, int64_t at) {
  char size[DIGITS + 1], sum[2 * TM_FILE_SUM + 1];
  if (!tm__buf_ok(b)) return;
  (void)snprintf(size, sizeof(size), "%010u", (unsigned)(b->len - begun + TRAILER));
  memcpy(b->ptr + begun + strlen(PREFIX), size, DIGITS);
  sum_hex(sum, id, at, (tm_slice){b->ptr + begun, b->len - begun});
  tm__buf_printf(b, "{\"sum\":\"%s\",\"frame\":\"%s\"}\n", sum, size);
}

void tm__file_frame_encode(tm_buf *b, int64_t at, const tm_file_state *state, const tm_row *row,
                           int64_t size) {
  size_t begun = b->len;
  tm__buf_text(b, PREFIX "0000000000\"");
  tm__json_key(b, "head");
  tm__file_state_encode(b, state);
  if (row != NULL) encode_row(b, row);
  tm__buf_text(b, "}\n");
  if (row != NULL) {
    tm__buf_slice(b, row->body);
    pad(b, begun, size);
  }
  seal(b, begun, tm__slice(state->head.id), at);
}

void tm__file_frame_move(tm_buf *b, tm_slice id, int64_t at, int64_t moved, int64_t size) {
  size_t begun = b->len;
  tm__buf_text(b, PREFIX "0000000000\"");
  tm__json_member_int(b, "moved", moved);
  tm__buf_text(b, "}\n");
  pad(b, begun, size);
  seal(b, begun, id, at);
}

/* ---- reading ---- */

static bool digits(const char *p, int64_t *out) {
  char text[DIGITS + 1] = "";
  memcpy(text, p, DIGITS);
  if (strspn(text, "0123456789") != DIGITS) return false;
  *out = strtoll(text, NULL, 10);
  return *out >= TRAILER + (int64_t)strlen(PREFIX) + DIGITS + 4 && *out <= SIZE_MAX_;
}

static bool decode_kind(tm_slice value, tm_row_kind *out) {
  if (value.len < 2) return false;
  for (size_t i = TM_ROW_BEGIN; i < KIND_COUNT; i++) {
    if (!tm__slice_is((tm_slice){value.ptr + 1, value.len - 2}, kinds[i])) continue;
    *out = (tm_row_kind)i;
    return true;
  }
  return false;
}

/* `rest`: what lies between the first line and the last. */
static bool decode_row(tm_file_frame *f, tm_slice json, tm_slice rest, tm_slice id) {
  tm_row *row = &f->row;
  int64_t bytes = tm__json_get_int(json, "bytes", -1);
  *row = (tm_row){.id = tm__json_get_int(json, "id", f->at),
                  .parent = tm__json_get_int(json, "parent", 0),
                  .base = tm__json_get_int(json, "base", 0),
                  .revision = tm__json_get_int(json, "revision", 0),
                  .created = tm__json_get_int(json, "created", 0),
                  .checkpoint = tm__slice_is(tm__json_get(json, "checkpoint"), "true"),
                  .flags = (uint32_t)tm__json_get_int(json, "flags", 0)};
  if (bytes < 0 || (size_t)bytes >= rest.len) return false;
  row->body = (tm_slice){rest.ptr, (size_t)bytes};
  return tm__copy(row->conversation, sizeof(row->conversation), id) &&
         decode_kind(tm__json_get(json, "kind"), &row->kind);
}

static bool decode(tm_file_frame *f, tm_slice bytes, tm_slice id) {
  const char *end = memchr(bytes.ptr, '\n', bytes.len);
  if (end == NULL) return false;
  tm_slice line = {bytes.ptr, (size_t)(end - bytes.ptr)};
  tm_slice row = tm__json_get(line, "row");
  f->head = tm__json_get(line, "head");
  f->moved = tm__json_get_int(line, "moved", 0);
  f->has_row = row.ptr != NULL;
  if ((f->head.ptr == NULL) == (f->moved == 0)) return false;
  return !f->has_row ||
         decode_row(f, row, (tm_slice){end + 1, bytes.len - line.len - 1 - TRAILER}, id);
}

/* All of a frame whose length is known. */
static bool check(tm_file_frame *f, tm_slice bytes, tm_slice id) {
  char sum[2 * TM_FILE_SUM + 1], last[TRAILER + 1];
  size_t covered = bytes.len - TRAILER;
  sum_hex(sum, id, f->at, (tm_slice){bytes.ptr, covered});
  (void)snprintf(last, sizeof(last), "{\"sum\":\"%s\",\"frame\":\"%.*s\"}\n", sum, DIGITS,
                 bytes.ptr + strlen(PREFIX));
  return memcmp(last, bytes.ptr + covered, TRAILER) == 0 && decode(f, bytes, id);
}

tm_file_look tm__file_frame_parse(tm_file_frame *f, tm_slice bytes, tm_slice id, int64_t at) {
  *f = (tm_file_frame){.at = at};
  size_t prefix = strlen(PREFIX);
  if (bytes.len < prefix + DIGITS) {
    size_t known = bytes.len < prefix ? bytes.len : prefix;
    return bytes.len == 0 || memcmp(bytes.ptr, PREFIX, known) == 0 ? TM_FILE_CUT : TM_FILE_BAD;
  }
  if (memcmp(bytes.ptr, PREFIX, prefix) != 0 || !digits(bytes.ptr + prefix, &f->size))
    return TM_FILE_BAD;
  if ((int64_t)bytes.len < f->size) return TM_FILE_CUT;
  return check(f, (tm_slice){bytes.ptr, (size_t)f->size}, id) ? TM_FILE_GOOD : TM_FILE_BAD;
}

static bool read_more(tm_buf *bytes, int fd, size_t size, int64_t at) {
  if (size <= bytes->len) return true;
  size_t more = size - bytes->len;
  char *room = tm__buf_room(bytes, more);
  int64_t n = room != NULL ? tm__file_read_all(fd, room, more, at + (int64_t)bytes->len) : -1;
  if (room == NULL) errno = ENOMEM;
  if (n > 0) bytes->len += (size_t)n;
  return n >= 0;
}

tm_file_look tm__file_frame_read(tm_file_frame *f, tm_buf *bytes, int fd, tm_slice id, int64_t at) {
  tm__buf_clear(bytes);
  if (!read_more(bytes, fd, FIRST, at)) return TM_FILE_FAILED;
  tm_file_look look = tm__file_frame_parse(f, tm__buf_view(bytes), id, at);
  if (look != TM_FILE_CUT || f->size <= (int64_t)bytes->len) return look;
  if (!read_more(bytes, fd, (size_t)f->size, at)) return TM_FILE_FAILED;
  return tm__file_frame_parse(f, tm__buf_view(bytes), id, at);
}

tm_file_look tm__file_frame_size(int fd, int64_t at, int64_t *size) {
  char first[sizeof(PREFIX) - 1 + DIGITS];
  int64_t n = tm__file_read_all(fd, first, sizeof(first), at);
  if (n < 0) return TM_FILE_FAILED;
  if (n < (int64_t)sizeof(first)) return TM_FILE_CUT;
  bool ok = memcmp(first, PREFIX, strlen(PREFIX)) == 0 && digits(first + strlen(PREFIX), size);
  return ok ? TM_FILE_GOOD : TM_FILE_BAD;
}

tm_file_look tm__file_frame_last(int fd, int64_t end, int64_t *at) {
  char last[TRAILER];
  int64_t size;
  size_t place = TRAILER - 3 - DIGITS;
  if (end < TRAILER) return TM_FILE_BAD;
  int64_t n = tm__file_read_all(fd, last, sizeof(last), end - TRAILER);
  if (n < 0) return TM_FILE_FAILED;
  if (n < TRAILER || memcmp(last, "{\"sum\":\"", 8) != 0 || !digits(last + place, &size) ||
      size > end)
    return TM_FILE_BAD;
  *at = end - size;
  return TM_FILE_GOOD;
}

tm_file_look tm__file_log_check(int fd, tm_slice id, int64_t *size) {
  tm_buf want = {0}, have = {0};
  tm_file_look look = TM_FILE_FAILED;
  tm__file_log_begin(&want, id);
  errno = ENOMEM;
  if (tm__buf_ok(&want) && read_more(&have, fd, want.len, 0)) {
    bool same = have.len == 0 || memcmp(want.ptr, have.ptr, have.len) == 0;
    look = !same ? TM_FILE_BAD : have.len < want.len ? TM_FILE_CUT : TM_FILE_GOOD;
    *size = (int64_t)want.len;
  }
  tm__buf_free(&want);
  tm__buf_free(&have);
  return look;
}

/* ---- small files ---- */

void tm__file_small_encode(tm_buf *b, const tm_file_name *name, tm_slice content) {
  unsigned char sum[TM_FILE_SUM];
  char hex[2 * TM_FILE_SUM + 1];
  size_t begun = b->len;
  tm__buf_byte(b, '{');
  tm__json_member_text(b, "is", tm__file_folder(name->what));
  tm__file_text(b, "of", name->a.len > 0 ? name->a : TM_S(""));
  if (name->b.len > 0) tm__file_text(b, "and", name->b);
  tm__json_member_int(b, "bytes", (int64_t)content.len);
  if (!tm__buf_ok(b)) return;
  tm__file_sum(sum, (const tm_slice[]){{b->ptr + begun, b->len - begun}, content}, 2);
  sodium_bin2hex(hex, sizeof(hex), sum, sizeof(sum));
  tm__json_member_text(b, "sum", hex);
  tm__buf_text(b, "}\n");
  tm__buf_slice(b, content);
  tm__buf_byte(b, '\n');
}

static bool decode_what(tm_slice value, tm_file_what *out) {
  if (value.len < 2) return false;
  for (int i = 0; i < TM_FILE_WHATS; i++) {
    if (!tm__slice_is((tm_slice){value.ptr + 1, value.len - 2}, tm__file_folder((tm_file_what)i)))
      continue;
    *out = (tm_file_what)i;
    return true;
  }
  return false;
}

bool tm__file_small_decode(tm_file_name *name, tm_slice *content, tm_slice bytes, tm_buf *names) {
  const char *end = bytes.len > 0 ? memchr(bytes.ptr, '\n', bytes.len) : NULL;
  tm_buf again = {0};
  bool there;
  *name = (tm_file_name){0};
  tm__buf_clear(names);
  if (end == NULL) return false;
  tm_slice line = {bytes.ptr, (size_t)(end - bytes.ptr)};
  int64_t size = tm__json_get_int(line, "bytes", -1);
  if (size < 0 || (size_t)size + line.len + 2 != bytes.len) return false;
  *content = (tm_slice){end + 1, (size_t)size};
  if (!decode_what(tm__json_get(line, "is"), &name->what) ||
      !tm__file_text_decode(line, "of", names, &there))
    return false;
  size_t middle = names->len;
  if (!tm__file_text_decode(line, "and", names, &there)) return false;
  tm_slice both = tm__buf_view(names);
  name->a = (tm_slice){both.ptr, middle};
  name->b = (tm_slice){both.ptr + middle, both.len - middle};
  tm__file_small_encode(&again, name, *content);
  bool same = tm__buf_ok(&again) && tm__slice_eq(tm__buf_view(&again), bytes);
  tm__buf_free(&again);
  return same;
}
