/* Rows as a damaged database could give them: one per line, KIND FLAGS body. A record is made of
 * them, answers and pages are rendered: an error that says so or JSON, and never a crash. */
#include "tests/fuzz/memory_rows.h"

#define PAGES_MOST 300

/* KIND is '0' to '5'; FLAGS 'c' is a checkpoint, 'n' of a newer program, 'b' has the first row as
 * base. */
static bool add_line(tm_head *h, tm_slice line, tm_slice body, int64_t first) {
  tm_row row = {.kind = (tm_row_kind)(TM_ROW_BEGIN + (line.ptr[0] & 0xff) % 6),
                .checkpoint = line.ptr[1] == 'c',
                .flags = line.ptr[1] == 'n',
                .base = line.ptr[1] == 'b' ? first : 0,
                .created = 1800000000000 + h->revision,
                .body = body};
  memcpy(row.conversation, h->id, sizeof(row.conversation));
  return rows_add(h, &row);
}

/* The object as we would have written it; false: it is damaged. */
static bool canonical(tm_buf *out, tm_slice body) {
  json_t *v = NULL;
  if (tm__json_parse(&v, body, TM_JSON_DEPTH, NULL) != TM_OK) return false;
  bool object = json_is_object(v);
  if (object) tm__json_value(out, v);
  json_decref(v);
  return object;
}

/* Puts the rows into the store; are all of them sound? */
static bool fill(tm_head *h, tm_slice data) {
  bool sound = true, taken = true;
  int64_t first = 0;
  while (taken && data.len > 0) {
    const char *end = memchr(data.ptr, '\n', data.len);
    size_t len = end != NULL ? (size_t)(end - data.ptr) : data.len;
    size_t used = end != NULL ? len + 1 : len;
    if (len >= 2) {
      tm_buf whole = {0};
      tm_slice body = {data.ptr + 2, len - 2};
      bool good = canonical(&whole, body);
      sound = sound && good;
      taken = add_line(h, data, good ? tm__buf_view(&whole) : body, first);
      tm__buf_free(&whole);
    }
    if (first == 0) first = h->tip;
    data = (tm_slice){data.ptr + used, data.len - used};
  }
  return sound;
}

static void check_record(const tm_head *h, bool unfinished) {
  tm_record r = {.head = *h, .in_memory = true};
  tm_tip tip = {0};
  tm_error err = {0};
  tm_status s = tm__record_rows(&r, &tip, &access_, h->tip, unfinished, &err);
  MUST(s == TM_OK || (s == TM_ECORRUPT && err.code[0] != '\0'));
  if (s == TM_OK) MUST(r.state.ptr != NULL && r.input.len > 0 && r.calls.len >= 2);
  tm__tip_clear(&tip);
  tm__record_clear(&r);
}

static void check_answer(const tm_head *h, bool sound) {
  reply r = {.calls = 1};
  tm_error refusal = {0}, err = {0};
  r.status = tm__render_answer(&r.json, &access_, true, h, h->tip, true, &refusal, &err);
  memcpy(r.code, err.code, sizeof(r.code));
  check_reply(&r, sound);
  tm__buf_free(&r.json);
}

static size_t count_items(tm_slice page) {
  tm_json_walk w;
  tm_slice key, value;
  size_t n = 0;
  if (!tm__json_walk(&w, tm__json_get(page, "items"))) return 0;
  while (tm__json_next(&w, &key, &value))
    n++;
  return n;
}

/* By pages of `limit`, the items are as many as on one page, and the cursors come to an end. */
static void check_pages(tm_read what, int limit, bool sound, size_t expected) {
  tm_buf cursor = {0};
  size_t items = 0;
  for (int page = 0; page < PAGES_MOST; page++) {
    reply r = read_page(what, tm__buf_view(&cursor), limit);
    check_reply(&r, sound);
    bool ok = r.status == TM_OK;
    size_t here = ok ? count_items(tm__buf_view(&r.json)) : 0;
    items += here;
    tm__buf_clear(&cursor);
    if (ok) (void)tm__json_get_text(tm__buf_view(&r.json), "next", &cursor);
    tm__buf_free(&r.json);
    if (cursor.len > 0 && sound) MUST(here == (size_t)limit);
    if (cursor.len > 0) continue;
    tm__buf_free(&cursor);
    MUST(!ok || !sound || items == expected);
    return;
  }
  MUST(!sound);
  tm__buf_free(&cursor);
}

static void check_list(tm_read what, bool sound) {
  reply all = read_page(what, tm__slice(NULL), 200);
  check_reply(&all, sound);
  size_t items = all.status == TM_OK ? count_items(tm__buf_view(&all.json)) : 0;
  bool whole = all.status == TM_OK && strstr(all.json.ptr, "\"next\":null}") != NULL;
  tm__buf_free(&all.json);
  if (what == TM_READ_CONVERSATION || !whole) return;
  check_pages(what, 1, sound, items);
  check_pages(what, 3, sound, items);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > 20000) return 0;
  rows_open();
  tm_head h = rows_head();
  bool sound = fill(&h, (tm_slice){(const char *)data, size});
  if (h.tip != 0) {
    check_record(&h, false);
    check_record(&h, true);
    check_answer(&h, sound);
    for (int what = TM_READ_CONVERSATION; what <= TM_READ_CHECKPOINTS; what++)
      check_list((tm_read)what, sound);
  }
  rows_close();
  return 0;
}
