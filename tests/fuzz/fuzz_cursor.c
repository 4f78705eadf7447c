/* Any text as a cursor of a known list: the first byte chooses the list. What is accepted gives the
 * rest of that list, exactly from some element on; all else is "cursor.invalid". */
#include "keeping/session.h"
#include "outbox/list.h"
#include "tests/fuzz/memory_rows.h"

enum { ROWS = 6 };

static tm_buf whole[TM_READ_CHECKPOINTS + 1]; /* the items of each list, newest first */

static void add_row(tm_head *h, int n) {
  tm_buf body = {0};
  tm__buf_printf(&body,
                 "{\"messages\":[{\"seq\":%d,\"text\":\"a%d\"},{\"seq\":%d,\"text\":\"b%d\"}],"
                 "\"runtime\":{},\"state\":{},\"status\":\"waiting_input\",\"step\":\"ask\","
                 "\"steps\":[{\"seq\":%d,\"step_id\":\"x\"},{\"seq\":%d,\"step_id\":\"y\"}],"
                 "\"wake_at\":0}",
                 2 * n, n, 2 * n + 1, n, 2 * n, 2 * n + 1);
  tm_row row = {.kind = TM_ROW_TURN,
                .checkpoint = true,
                .created = 1800000000000 + n,
                .body = tm__buf_view(&body)};
  memcpy(row.conversation, h->id, sizeof(row.conversation));
  MUST(rows_add(h, &row));
  tm__buf_free(&body);
}

/* Without the brackets. */
static tm_slice items_of(const reply *r) {
  tm_slice items = tm__json_get(tm__buf_view(&r->json), "items");
  MUST(items.len >= 2);
  return (tm_slice){items.ptr + 1, items.len - 2};
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc;
  (void)argv;
  rows_open();
  tm_head h = rows_head();
  for (int n = 0; n < ROWS; n++)
    add_row(&h, n);
  for (int what = TM_READ_STEPS; what <= TM_READ_CHECKPOINTS; what++) {
    reply r = read_page((tm_read)what, tm__slice(NULL), 200);
    MUST(r.status == TM_OK);
    tm__buf_slice(&whole[what], items_of(&r));
    tm__buf_free(&r.json);
  }
  return 0;
}

/* Is `rest` the end of the list, beginning with one of its elements? */
static bool is_rest(tm_slice all, tm_slice rest) {
  if (rest.len > all.len) return false;
  const char *at = all.ptr + all.len - rest.len;
  if (rest.len > 0 && memcmp(at, rest.ptr, rest.len) != 0) return false;
  return rest.len == 0 || rest.len == all.len || at[-1] == ',';
}

/* Three numbers, each written the one way that there is, perhaps ".LEFT", perhaps a conversation.
 */
static bool is_strict(tm_slice cursor) {
  char text[128];
  unsigned list;
  unsigned long long row, index, left = 0;
  int end = 0, more = 0;
  if (!tm__copy(text, sizeof(text), cursor)) return false;
  if (sscanf(text, "%1u-%16llx-%16llx%n", &list, &row, &index, &end) != 3) return false;
  if (sscanf(text + end, ".%16llx%n", &left, &more) == 1) end += more;
  if (text[end] == '-') {
    if (!tm__uuid_valid(tm__slice(text + end + 1))) return false;
    text[end] = '\0';
  }
  if (text[end] != '\0') return false;
  char again[64];
  int n = snprintf(again, sizeof(again), "%u-%llx-%llx", list, row, index);
  if (left != 0) (void)snprintf(again + n, sizeof(again) - (size_t)n, ".%llx", left);
  return strcmp(text, again) == 0;
}

/* Who says that a branch was left has its steps marked, which they are not in the whole list. */
static void check_read(tm_read what, tm_slice cursor) {
  reply r = read_page(what, cursor, 200);
  bool marked = cursor.len > 0 && memchr(cursor.ptr, '.', cursor.len) != NULL;
  check_reply(&r, true);
  if (r.status == TM_OK && what != TM_READ_CONVERSATION && !marked)
    MUST(is_rest(tm__buf_view(&whole[what]), items_of(&r)));
  if (r.status == TM_OK) MUST(cursor.len == 0 || is_strict(cursor));
  if (r.status != TM_OK) MUST(strcmp(r.code, "cursor.invalid") == 0);
  tm__buf_free(&r.json);
}

/* The list of conversations: its cursors are ids. */
static void check_conversations(tm_slice cursor) {
  reply r = {0};
  tm_filter f = TM_FILTER_INIT;
  char *text = tm__slice_dup(cursor);
  f.cursor = text;
  tm__reader_list(NULL, &f, on_answer, &r);
  check_reply(&r, true);
  bool may = text[0] == '\0' || tm__uuid_valid(tm__slice(text));
  MUST(may == (r.status == TM_OK));
  if (!may) MUST(strcmp(r.code, "cursor.invalid") == 0);
  tm__buf_free(&r.json);
  free(text);
}

/* The lists of sessions and of events, which are empty. */
static void check_empty(bool sessions, tm_slice cursor) {
  reply r = {0};
  if (sessions)
    tm__session_list(NULL, TM_S("default"), NULL, cursor, 0, on_answer, &r);
  else
    tm__outbox_list(NULL, TM_S("default"), NULL, cursor, 0, on_answer, &r);
  check_reply(&r, true);
  if (r.status == TM_OK) MUST(items_of(&r).len == 0);
  if (r.status != TM_OK) MUST(strcmp(r.code, "cursor.invalid") == 0);
  tm__buf_free(&r.json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  tm_slice cursor = {(const char *)data + 1, size - 1};
  int list = data[0] % 7;
  if (list >= 5)
    check_empty(list == 5, cursor);
  else if (list == 4)
    check_conversations(cursor);
  else
    check_read((tm_read)list, cursor);
  return 0;
}
