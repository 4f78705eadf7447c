/* The file backend's own promises: what its files look like, torn and damaged logs, an index that
 * is missing, damaged or old. */
#include "damaged_names.h"
#include "damaged_session.h"
#include "file_bytes.h"
#include "file_store.h"

#include <ftw.h>

#include "core/json.h"
#include "persistence/store_file.h"

/* ---- what a person finds ---- */

static void logs_are_lines_of_json(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{\"said\":\"first\"}");
  (void)turn(fx, nth(1).text, 1, first, "{\"said\":\"second\"}");
  tm_buf log = content_of(log_of(fx, 1).text);
  size_t lines = 0;
  for (char *at = log.ptr, *end; (end = strchr(at, '\n')) != NULL; at = end + 1, lines++) {
    json_t *v = NULL;
    assert_ok(fx, tm__json_parse(&v, (tm_slice){at, (size_t)(end - at)}, 16, &fx->err));
    json_decref(v);
  }
  assert_int_equal(lines, 1 + 2 * 3);
  assert_non_null(strstr(log.ptr, "\n{\"said\":\"second\"}\n"));
  assert_non_null(strstr(log.ptr, "\"step\":\"ask\""));
  assert_non_null(strstr(log.ptr, "\"status\":\"waiting_input\""));
  tm__buf_free(&log);
}

static int is_private(const char *name, const struct stat *st, int type, struct FTW *where) {
  (void)type, (void)where;
  if ((st->st_mode & 077) == 0) return 0;
  print_error("%s has mode %03o\n", name, (unsigned)(st->st_mode & 0777));
  return 1;
}

static void nobody_else_may_read(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  assert_ok(fx, fx->backend->note_put(fx->writer, TM_S("a"), TM_S("x"), &fx->err));
  assert_int_equal(nftw(fx->file, is_private, 8, FTW_PHYS), 0);
  assert_int_equal(inspect(fx, true).warnings, 0);
  assert_int_equal(chmod(fx->file, 0755), 0);
  told t = inspect(fx, false);
  assert_int_equal(t.warnings, 1);
  assert_non_null(strstr(t.text, "chmod 700"));
}

static void larger_records_are_refused(void **state) {
  fixture *fx = *state;
  fixture_close(fx);
  fx->options.record_bytes_max = 10;
  fixture_open(fx);
  int64_t first = turn(fx, nth(1).text, 0, 0, "0123456789");
  tm_row row = row_of(fx, first, "0123456789x");
  tm_commit c = commit_of(fx, nth(1).text, 1, &row);
  assert_int_equal(commit_one(fx, &c), TM_ETOOLARGE);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
}

/* ---- torn logs ---- */

#define MANY 1000

/* Three turns for each of the conversations 1 to `count`, all alike. */
static void turns_of_many(fixture *fx, int count, int64_t id[4]) {
  static tm_commit commits[MANY], *items[MANY];
  assert_in_range(count, 1, MANY);
  id[0] = 0;
  for (int t = 1; t <= 3; t++) {
    tm_row row = row_of(fx, id[t - 1], "{\"n\":1}");
    for (int i = 0; i < count; i++) {
      commits[i] = commit_of(fx, nth(i + 1).text, t - 1, &row);
      items[i] = &commits[i];
    }
    assert_ok(fx, fx->backend->commit(fx->writer, items, (size_t)count, &fx->err));
    for (int i = 0; i < count; i++) {
      assert_int_equal(commits[i].status, TM_OK);
      assert_true(i == 0 || commits[i].row_id == id[t]);
      id[t] = commits[i].row_id;
    }
  }
}

/* The n-th log ends after n - 1 bytes of its last commit; nothing else knows how it ended. */
static void a_torn_end_is_dropped_at_every_byte(void **state) {
  fixture *fx = *state;
  int64_t id[4];
  turns_of_many(fx, 1, id);
  int64_t size = size_of(log_of(fx, 1).text);
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(1).text), 3, true, &fx->err));
  int count = (int)(size - id[3]) + 1;
  assert_in_range(count, 200, MANY);
  turns_of_many(fx, count, id);
  fixture_close(fx);
  drop_index(fx);
  for (int n = 1; n <= count; n++)
    assert_int_equal(truncate(log_of(fx, n).text, id[3] + n - 1), 0);
  fixture_open(fx);
  for (int n = 1; n <= count; n++) {
    bool whole = n == count;
    tm_head head = head_of(fx, nth(n).text);
    assert_int_equal(head.revision, whole ? 3 : 2);
    assert_int_equal(head.tip, id[whole ? 3 : 2]);
    assert_int_equal(chain_length(fx, n, head.tip), whole ? 3 : 2);
    assert_int_equal(size_of(log_of(fx, n).text), whole ? size : id[3]);
  }
  told t = inspect(fx, true);
  assert_int_equal(t.errors, 0);
  assert_int_equal(t.warnings, 1);
  char want[64];
  (void)snprintf(want, sizeof(want), "%d logs ended in the middle of a commit", count - 2);
  assert_non_null(strstr(t.text, want));
  assert_true(turn(fx, nth(1).text, 2, id[2], "{}") == id[3]);
}

static void blanks_at_the_end_are_dropped(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{}");
  fixture_close(fx);
  int64_t size = size_of(log_of(fx, 1).text);
  assert_int_equal(truncate(log_of(fx, 1).text, size + 5000), 0);
  drop_index(fx);
  fixture_open(fx);
  assert_int_equal(size_of(log_of(fx, 1).text), size);
  assert_int_equal(turn(fx, nth(1).text, 1, first, "{}"), size);
}

static void a_log_without_a_commit_is_nothing(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  fixture_close(fx);
  assert_int_equal(truncate(log_of(fx, 1).text, 20), 0);
  assert_int_equal(truncate(log_of(fx, 2).text, 0), 0);
  drop_index(fx);
  fixture_open(fx);
  tm_head head;
  for (int i = 1; i <= 2; i++)
    assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(i).text), &head, NULL),
                     TM_ENOTFOUND);
  (void)turn(fx, nth(1).text, 0, 0, "{}");
}

#define TORN 100

static void turns_and_death(fixture *fx) {
  int64_t id[4];
  fixture_open(fx);
  turns_of_many(fx, TORN, id);
}

/* The redo log still knows what a log lost with the power, and one whose name is lost. */
static void a_crash_tears_nothing(void **state) {
  fixture *fx = *state;
  for (int round = 0; round < 2; round++) {
    fixture_remove(fx);
    fixture_make(fx, tm__store_backend(TM_S("file")));
    in_a_dying_process(fx, turns_and_death);
    int64_t whole = size_of(log_of(fx, 1).text);
    for (int n = 1; n < TORN; n++)
      assert_int_equal(truncate(log_of(fx, n).text, whole * n / TORN), 0);
    assert_int_equal(unlink(log_of(fx, TORN).text), 0);
    if (round == 1) drop_index(fx);
    fixture_open(fx);
    for (int n = 1; n <= TORN; n++) {
      tm_head head = head_of(fx, nth(n).text);
      assert_int_equal(head.revision, 3);
      assert_int_equal(chain_length(fx, n, head.tip), 3);
      assert_int_equal(size_of(log_of(fx, n).text), whole);
    }
  }
}

static void three_turns(fixture *fx) {
  int64_t id[4];
  fixture_open(fx);
  turns_of_many(fx, 1, id);
}

/* A group that is not whole in the redo log was never acknowledged. */
static void a_torn_group_never_was(void **state) {
  fixture *fx = *state;
  fixture_close(fx);
  in_a_dying_process(fx, three_turns);
  drop_index(fx); /* it would say that the third one was */
  path redo = beside(fx, "0.redo");
  tm_buf all = content_of(redo.text);
  size_t third = all.len;
  for (size_t i = 8; i + 8 < all.len; i++) /* where the last group begins */
    if (memcmp(all.ptr + i, "TMredo1\n", 8) == 0) third = i;
  for (size_t size = third; size < all.len; size += (all.len - third) / 8) {
    set_content(redo.text, all.ptr, size);
    assert_int_equal(unlink(log_of(fx, 1).text), 0);
    drop_index(fx);
    fixture_open(fx);
    assert_int_equal(head_of(fx, nth(1).text).revision, 2);
    fixture_close(fx);
  }
  fixture_open(fx);
  tm__buf_free(&all);
}

/* ---- damage ---- */

static tm_status chain_status(fixture *fx, int n, int64_t row) {
  seen s = {0};
  fx->err = (tm_error){0};
  return fx->backend->chain(fx->reader, tm__slice(nth(n).text), row, false, see_row, &s, &fx->err);
}

static void flip(const char *name, int64_t at) {
  char byte;
  int fd = open(name, O_RDWR);
  assert_true(fd >= 0);
  assert_int_equal(pread(fd, &byte, 1, at), 1);
  byte = (char)(byte ^ 0x20);
  assert_int_equal(pwrite(fd, &byte, 1, at), 1);
  (void)close(fd);
}

static void an_altered_byte_is_damage(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{\"n\":1}");
  int64_t second = turn(fx, nth(1).text, 1, first, "{\"n\":2}");
  int64_t third = turn(fx, nth(1).text, 2, second, "{\"n\":3}");
  int64_t other = turn(fx, nth(2).text, 0, 0, "{}");
  path name = log_of(fx, 1);
  for (int64_t at = second; at < third; at++) {
    flip(name.text, at);
    assert_int_equal(chain_status(fx, 1, third), TM_ECORRUPT);
    assert_string_equal(fx->err.code, "journal.damaged");
    assert_string_equal(fx->err.conversation_id, nth(1).text);
    assert_non_null(strstr(fx->err.message, name.text));
    flip(name.text, at);
  }
  assert_int_equal(chain_status(fx, 1, third), TM_OK);
  flip(name.text, second + 30);
  told t = inspect(fx, true);
  assert_int_equal(t.errors, 1);
  assert_non_null(strstr(t.text, name.text));
  assert_int_equal(head_of(fx, nth(1).text).revision, 3); /* its end is whole */
  assert_int_equal(chain_length(fx, 2, other), 1);
  assert_int_equal(chain_status(fx, 1, first), TM_OK);
}

static void a_frame_of_another_log_is_damage(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  int64_t tip = turn(fx, nth(2).text, 0, 0, "{}");
  tm_buf other = content_of(log_of(fx, 1).text);
  set_content(log_of(fx, 2).text, other.ptr, other.len);
  assert_int_equal(chain_status(fx, 2, tip), TM_ECORRUPT);
  tm__buf_free(&other);
}

/* What is damaged at its end is not cut and not used, and stops nobody else. */
static void a_damaged_end_is_told(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{}");
  int64_t second = turn(fx, nth(1).text, 1, first, "{}");
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  fixture_close(fx);
  int64_t size = size_of(log_of(fx, 1).text);
  flip(log_of(fx, 1).text, second + 40);
  drop_index(fx);
  fixture_open(fx);
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, &fx->err),
                   TM_ECORRUPT);
  assert_string_equal(fx->err.code, "journal.damaged");
  assert_string_equal(fx->err.conversation_id, nth(1).text);
  assert_int_equal(chain_status(fx, 1, first), TM_ECORRUPT);
  tm_commit bad = commit_of(fx, nth(1).text, 2, NULL), good = commit_of(fx, nth(2).text, 1, NULL);
  tm_commit *items[] = {&bad, &good};
  assert_ok(fx, fx->backend->commit(fx->writer, items, 2, &fx->err));
  assert_int_equal(bad.status, TM_ECORRUPT);
  assert_int_equal(good.status, TM_OK);
  assert_int_equal(size_of(log_of(fx, 1).text), size);
  assert_int_equal(inspect(fx, false).errors, 1);
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(1).text), 2, true, &fx->err));
  assert_int_equal(inspect(fx, false).errors, 0);
}

static path session_file(const fixture *fx, const char *session) {
  return small_file(fx, TM_FILE_SESSION, "default", session);
}

typedef struct listed {
  tm_head heads[8];
  size_t count;
} listed;

static tm_status note_head(void *ud, const tm_head *head) {
  listed *l = ud;
  assert_true(l->count < 8);
  l->heads[l->count++] = *head;
  return TM_OK;
}

static listed list(fixture *fx, tm_list_filter f) {
  listed l = {.count = 0};
  assert_ok(fx, fx->backend->list(fx->reader, &f, note_head, &l, &fx->err));
  return l;
}

/* Whoever wants everything hears of it by its id; nobody knows whose it is, or where it stands. */
static void what_cannot_be_read_is_listed_by_its_id(void **state) {
  fixture *fx = *state;
  for (int n = 1; n <= 5; n++)
    (void)turn(fx, nth(n).text, 0, 0, "{}");
  tm_session s = {.tenant = TM_S("default"), .id = TM_S("s"), .created = 5};
  assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &s, &fx->err));
  path small = session_file(fx, "s");
  fixture_close(fx);
  flip(log_of(fx, 2).text, size_of(log_of(fx, 2).text) - 60);
  flip(log_of(fx, 4).text, size_of(log_of(fx, 4).text) - 60);
  flip(small.text, 5);
  drop_index(fx);
  fixture_open(fx);
  assert_int_equal(inspect(fx, false).errors, 3);
  listed all = list(fx, (tm_list_filter){.status = -1, .limit = 8});
  assert_int_equal(all.count, 5); /* a session is no conversation */
  for (int i = 0; i < 5; i++) {
    const tm_head *h = &all.heads[i];
    assert_string_equal(h->id, nth(5 - i).text);
    assert_string_equal(h->tenant, i % 2 == 1 ? "" : "default");
    assert_int_equal(h->revision, i % 2 == 1 ? -1 : 1);
  }
  tm_list_filter page = {.status = -1, .limit = 2};
  memcpy(page.before, nth(5).text, sizeof(page.before));
  listed two = list(fx, page);
  assert_int_equal(two.count, 2);
  assert_string_equal(two.heads[0].id, nth(4).text);
  assert_string_equal(two.heads[1].id, nth(3).text);
  tm_list_filter own = {.tenant = TM_S("default"), .status = -1, .limit = 8};
  assert_int_equal(list(fx, own).count, 3);
  assert_int_equal(list(fx, (tm_list_filter){.status = TM_ACTIVE, .limit = 8}).count, 0);
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(2).text), 0, true, &fx->err));
  assert_int_equal(list(fx, (tm_list_filter){.status = -1, .limit = 8}).count, 4);
}

typedef struct told_of {
  char text[8][600];
  size_t count;
} told_of;

static tm_status note_unreadable(void *ud, const tm_error *why) {
  told_of *t = ud;
  assert_true(t->count < 8);
  assert_int_equal(why->status, TM_ECORRUPT);
  assert_string_equal(why->code, "store.damaged");
  (void)snprintf(t->text[t->count++], sizeof(t->text[0]), "%.599s", why->message);
  return TM_OK;
}

static told_of unreadable(fixture *fx) {
  told_of t = {.count = 0};
  assert_ok(fx, fx->backend->unreadable(fx->reader, note_unreadable, &t, &fx->err));
  return t;
}

/* Of a small file its name is in it; it is told by where it lies, until it is written anew. */
static void small_files_that_cannot_be_read_are_told(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  const tm_session s = {.tenant = TM_S("default"), .id = TM_S("s"), .created = 5};
  assert_ok(fx, b->session_put(fx->writer, NULL, &s, &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("shop"), TM_S("v1"), TM_S("x"), &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("seal"), TM_S("x"), &fx->err));
  assert_ok(fx, b->tenant_wake(fx->writer, TM_S("acme"), -1, 7, &fx->err));
  const path files[] = {small_file(fx, TM_FILE_NOTE, "seal", ""),
                        small_file(fx, TM_FILE_SCRIPT, "shop", "v1"), session_file(fx, "s"),
                        small_file(fx, TM_FILE_TENANT, "acme", "")};
  assert_int_equal(unreadable(fx).count, 0);
  fixture_close(fx);
  for (int i = 0; i < 4; i++)
    flip(files[i].text, 5);
  drop_index(fx);
  fixture_open(fx);
  told_of t = unreadable(fx);
  assert_int_equal(t.count, 4);
  for (int i = 0; i < 4; i++)
    assert_non_null(strstr(t.text[i], files[i].text));
  assert_int_equal(inspect(fx, false).errors, 4);
  assert_ok(fx, b->session_put(fx->writer, NULL, &s, &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("shop"), TM_S("v1"), TM_S("x"), &fx->err));
  assert_ok(fx, b->tenant_wake(fx->writer, TM_S("acme"), -1, 7, &fx->err));
  t = unreadable(fx);
  assert_int_equal(t.count, 1);
  assert_non_null(strstr(t.text[0], files[0].text));
  assert_int_equal(inspect(fx, true).errors, 2); /* known, and seen */
}

static const char *harm; /* what is set in the index's row of session s1 */

static void harm_session(void *ud) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql), "UPDATE sessions SET %s WHERE id='s1'", harm);
  sqlite3 *db = sql_open(beside(ud, "index.db").text);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void one_session_stops_nobody(void **state) {
  fixture *fx = *state;
  harm = "created=-5";
  damaged_session(fx, harm_session, fx, true, true);
}

static void harm_event(void *ud, const char *id) {
  char sql[200];
  (void)snprintf(sql, sizeof(sql),
                 "UPDATE outbox SET conversation=printf('%%.70c','x') WHERE conversation='%s' AND "
                 "idx=0",
                 id);
  sqlite3 *db = sql_open(beside(ud, "index.db").text);
  sql_run(db, sql);
  sqlite3_close(db);
}

static void nor_does_an_event_without_a_name(void **state) {
  nameless_event(*state, harm_event, *state);
}

static void harm_tenant(void *ud) {
  sqlite3 *db = sql_open(beside(ud, "index.db").text);
  sql_run(db, "UPDATE tenants SET tenant=CAST(x'41ff' AS TEXT) WHERE tenant='acme'");
  sqlite3_close(db);
}

static void nor_does_a_tenant_without_one(void **state) {
  nameless_tenant(*state, harm_tenant, *state);
}

static void nor_does_a_session_without_a_name(void **state) {
  fixture *fx = *state;
  harm = "id=CAST(x'7331ff' AS TEXT)";
  nameless_session(fx, harm_session, fx);
}

/* The index knows that more was durable than is there now. */
static void a_log_that_lost_its_end_is_not_written(void **state) {
  fixture *fx = *state;
  int64_t first = turn(fx, nth(1).text, 0, 0, "{}");
  int64_t second = turn(fx, nth(1).text, 1, first, "{}");
  assert_int_equal(truncate(log_of(fx, 1).text, second + 10), 0);
  tm_commit c = commit_of(fx, nth(1).text, 2, NULL);
  assert_int_equal(commit_one(fx, &c), TM_ECORRUPT);
  assert_int_equal(chain_status(fx, 1, second), TM_ECORRUPT);
  assert_int_equal(unlink(log_of(fx, 1).text), 0);
  assert_int_equal(commit_one(fx, &c), TM_ECORRUPT);
  assert_int_equal(chain_status(fx, 1, second), TM_ECORRUPT);
}

/* ---- the index ---- */

static tm_status count_due(void *ud, const tm_head *head) {
  assert_string_equal(head->id, nth(2).text);
  ++*(int *)ud;
  return TM_OK;
}

static tm_status see_session(void *ud, const tm_session *s) {
  assert_true(tm__slice_is(s->user_id, "\xff who"));
  assert_true(tm__slice_is(s->metadata, "{\"a\":1}"));
  assert_int_equal(s->look_at, 9);
  ++*(int *)ud;
  return TM_OK;
}

static tm_status see_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  assert_true(tm__slice_is(tenant, "acme"));
  assert_int_equal(wake_at, 500);
  ++*(int *)ud;
  return TM_OK;
}

static void fill_store(fixture *fx) {
  const tm_store_backend *b = fx->backend;
  int64_t tip = turn(fx, nth(1).text, 0, 0, "{}");
  (void)turn(fx, nth(1).text, 1, tip, "{}");
  tm_row row = row_of(fx, 0, "{}");
  tm_session session = {.user_id = TM_S("\xff who"), .metadata = TM_S("{\"a\":1}"), .look_at = 9};
  tm_commit c = commit_of(fx, nth(2).text, 0, &row);
  c.head.wake_at = 7;
  c.start_key = UINT64_MAX;
  c.start_body = 5;
  c.start_answer = true;
  c.session = &session;
  assert_ok(fx, commit_one(fx, &c));
  tm_commit over = commit_of(fx, nth(3).text, 0, NULL);
  over.head.status = TM_COMPLETED;
  over.head.ended = 33;
  assert_ok(fx, commit_one(fx, &over));
  (void)turn(fx, nth(4).text, 0, 0, "{}");
  assert_ok(fx, b->purge(fx->writer, tm__slice(nth(4).text), 1, true, &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("shop"), TM_S("3f9c"), TM_S("return {}"), &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("a.b"), TM_S("\0text\xff"), &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("gone"), TM_S("x"), &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("gone"), (tm_slice){NULL, 0}, &fx->err));
  assert_ok(fx, b->tenant_wake(fx->writer, TM_S("acme"), -1, 500, &fx->err));
}

static void check_store(fixture *fx) {
  const tm_store_backend *b = fx->backend;
  tm_buf text = {0};
  tm_start_key key;
  seen all = {0};
  int due = 0, sessions = 0, tenants = 0;
  tm_list_filter f = filter_of(0, "", 10);
  assert_ok(fx, b->list(fx->reader, &f, see_head, &all, &fx->err));
  assert_int_equal(all.count, 3);
  assert_string_equal(all.ids[0], nth(3).text);
  assert_int_equal(chain_length(fx, 1, head_of(fx, nth(1).text).tip), 2);
  assert_int_equal(head_of(fx, nth(3).text).ended, 33);
  assert_ok(fx, b->due(fx->reader, 7, 0, 10, count_due, &due, &fx->err));
  assert_int_equal(due, 1);
  assert_ok(fx, b->start_key(fx->reader, TM_S("default"), UINT64_MAX, &key, &fx->err));
  assert_string_equal(key.conversation, nth(2).text);
  assert_int_equal(key.row, head_of(fx, nth(2).text).tip);
  assert_int_equal(key.body, 5);
  assert_ok(fx,
            b->session(fx->reader, TM_S("default"), TM_S("s1"), see_session, &sessions, &fx->err));
  assert_int_equal(sessions, 1);
  assert_ok(fx, b->script_get(fx->reader, TM_S("shop"), TM_S("3f9c"), &text, &fx->err));
  assert_string_equal(text.ptr, "return {}");
  tm__buf_clear(&text);
  assert_ok(fx, b->note_get(fx->reader, TM_S("a.b"), &text, &fx->err));
  assert_memory_equal(text.ptr, "\0text\xff", 6);
  assert_int_equal(b->note_get(fx->reader, TM_S("gone"), &text, NULL), TM_ENOTFOUND);
  assert_ok(fx, b->tenants(fx->reader, TM_S(""), 10, see_tenant, &tenants, &fx->err));
  assert_int_equal(tenants, 1);
  assert_int_equal(inspect(fx, true).errors, 0);
  tm__buf_free(&text);
}

static void an_index_that_is_gone_is_made_anew(void **state) {
  fixture *fx = *state;
  fill_store(fx);
  check_store(fx);
  fixture_close(fx);
  drop_index(fx);
  fixture_open(fx);
  check_store(fx);
  assert_non_null(strstr(inspect(fx, false).text, "made anew"));
  fixture_close(fx);
  fixture_open(fx);
  check_store(fx);
  assert_null(strstr(inspect(fx, false).text, "made anew"));
}

static void a_damaged_index_is_made_anew(void **state) {
  fixture *fx = *state;
  fill_store(fx);
  path name = beside(fx, "index.db");
  static const char junk[8192] = "no database";
  for (int i = 0; i < 4; i++) {
    fixture_close(fx);
    int64_t size = size_of(name.text);
    if (i == 0) set_content(name.text, junk, sizeof(junk));
    if (i == 1) assert_int_equal(truncate(name.text, size / 2), 0);
    if (i == 2) assert_int_equal(truncate(name.text, 0), 0);
    if (i == 3) {
      int fd = open(name.text, O_WRONLY);
      assert_int_equal(pwrite(fd, junk, 4096, 8192), 4096);
      (void)close(fd);
    }
    fixture_open(fx);
    check_store(fx);
    assert_non_null(strstr(inspect(fx, false).text, "made anew"));
  }
}

/* What is to be delivered is in files of its own, with when it is due. */
static tm_status see_event(void *ud, const tm_outgoing *event) {
  tm_buf *b = ud;
  tm__buf_printf(b, "%s %lld.%d due %lld dead %lld attempts %d note '%s' flags %u body ",
                 event->conversation + 34, (long long)event->revision, event->index,
                 (long long)event->due_at, (long long)event->dead_at, event->attempts, event->note,
                 (unsigned)event->flags);
  tm__buf_slice(b, event->body);
  tm__buf_byte(b, '\n');
  return TM_OK;
}

static void list_events(fixture *fx, tm_buf *out) {
  const tm_outgoing_filter f = {.dead = -1, .limit = 100};
  tm__buf_clear(out);
  assert_ok(fx, fx->backend->outbox_list(fx->reader, &f, see_event, out, &fx->err));
  tm__buf_byte(out, '\0');
  assert_true(tm__buf_ok(out));
}

static tm_status keep_event(void *ud, const tm_outgoing *event) {
  *(tm_outgoing *)ud = *event;
  return TM_OK;
}

static void a_new_index_knows_events(void **state) {
  fixture *fx = *state;
  tm_buf before = {0}, later = {0};
  const tm_store_backend *b = fx->backend;
  const char bytes[] = {'s', 0, (char)0xfe, 'x'};
  for (int n = 1; n <= 3; n++) {
    tm_row row = row_of(fx, 0, "{}");
    const tm_outgoing events[] = {{.created = 5, .body = TM_S("{\"event\":\"a\"}")},
                                  {.created = 5, .flags = 2, .body = {bytes, sizeof(bytes)}}};
    tm_commit c = commit_of(fx, nth(n).text, 0, &row);
    c.events = events;
    c.event_count = 2;
    assert_ok(fx, commit_one(fx, &c));
  }
  for (int i = 0; i < 3; i++) {
    tm_outgoing e = {.revision = 0};
    assert_ok(fx, b->outbox_take(fx->writer, 100, 900 + i, 1, keep_event, &e, &fx->err));
    set_text(e.note, sizeof(e.note), "HTTP 500");
    if (i == 0) continue; /* under way */
    assert_ok(fx, b->outbox_settle(fx->writer, &e, i == 1 ? TM_OUTCOME_DEAD : TM_OUTCOME_DELIVERED,
                                   700 + i, &fx->err));
  }
  list_events(fx, &before);
  for (int i = 0; i < 2; i++) { /* with the redo log's help, and without */
    fixture_close(fx);
    assert_int_equal(unlink(beside(fx, "index.db").text), 0);
    fixture_open(fx);
    assert_non_null(strstr(inspect(fx, false).text, "made anew"));
    list_events(fx, &later);
    assert_string_equal(later.ptr, before.ptr);
  }
  int64_t next = 0;
  assert_ok(fx, b->outbox_next(fx->reader, &next, &fx->err));
  assert_int_equal(next, 701);
  tm__buf_free(&before);
  tm__buf_free(&later);
}

static void many_turns(fixture *fx) {
  fixture_open(fx);
  tm_head head = head_of(fx, nth(1).text);
  for (int i = 0; i < 5; i++)
    head.tip = turn(fx, nth(1).text, (int)head.revision + i, head.tip, "{}");
}

/* It comes from a backup, and the redo log does not reach back that far. */
static void an_old_index_is_noticed(void **state) {
  fixture *fx = *state;
  fill_store(fx);
  fixture_close(fx);
  tm_buf old = content_of(beside(fx, "index.db").text);
  fixture_open(fx);
  (void)turn(fx, nth(5).text, 0, 0, "{}");
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(5).text), 1, true, &fx->err));
  fixture_close(fx);
  in_a_dying_process(fx, many_turns);
  drop_index(fx);
  set_content(beside(fx, "index.db").text, old.ptr, old.len);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 7);
  assert_non_null(strstr(inspect(fx, false).text, "made anew"));
  tm__buf_free(&old);
}

/* ---- what is no store of ours ---- */

static tm_status open_status(fixture *fx) {
  tm_store *s = NULL;
  tm_status status = fx->backend->open(&s, &fx->options, &fx->err);
  fx->backend->close(s);
  return status;
}

static void a_redo_log_that_is_missing_is_told(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  fixture_close(fx);
  in_a_dying_process(fx, many_turns);
  tm_buf redo = content_of(beside(fx, "0.redo").text);
  assert_int_equal(unlink(beside(fx, "0.redo").text), 0);
  assert_int_equal(open_status(fx), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.damaged");
  set_content(beside(fx, "0.redo").text, redo.ptr, redo.len);
  fixture_open(fx);
  assert_int_equal(head_of(fx, nth(1).text).revision, 6);
  tm__buf_free(&redo);
}

static void foreign_and_newer_folders_are_left_alone(void **state) {
  fixture *fx = *state;
  static const char newer[] = "{\"tidemill\":\"file store\",\"format\":2}\n";
  fixture_close(fx);
  set_content(beside(fx, "tidemill.json").text, newer, strlen(newer));
  assert_int_equal(open_status(fx), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.newer");
  set_content(beside(fx, "tidemill.json").text, "{}\n", 3);
  assert_int_equal(open_status(fx), TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.foreign");
  assert_int_equal(unlink(beside(fx, "tidemill.json").text), 0);
  fixture_open(fx);
}

static void a_folder_that_is_moved_is_noticed(void **state) {
  fixture *fx = *state;
  (void)turn(fx, nth(1).text, 0, 0, "{}");
  path away = beside(fx, "index.db.away");
  assert_int_equal(rename(beside(fx, "index.db").text, away.text), 0);
  tm_commit c = commit_of(fx, nth(1).text, 1, NULL);
  assert_int_equal(commit_one(fx, &c), TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.moved");
  assert_int_equal(rename(away.text, beside(fx, "index.db").text), 0);
  assert_ok(fx, commit_one(fx, &c));
}

/* ---- other bodies ---- */

static tm_status see_body(void *ud, const tm_row *row) {
  tm_buf *b = ud;
  tm__buf_printf(b, "%lld:%u:%.*s ", (long long)row->id, row->flags,
                 (int)(row->body.len > 40 ? 40 : row->body.len), row->body.ptr);
  return TM_OK;
}

static void must_read(fixture *fx, int64_t tip, const char *want) {
  tm_buf b = {0};
  assert_ok(fx, fx->backend->chain(fx->reader, tm__slice(nth(1).text), tip, false, see_body, &b,
                                   &fx->err));
  assert_string_equal(b.ptr, want);
  tm__buf_free(&b);
}

static void rewritten_rows_keep_their_ids(void **state) {
  fixture *fx = *state;
  char large[2000], want[400];
  int64_t id[4] = {0};
  for (int i = 1; i <= 3; i++)
    id[i] = turn(fx, nth(1).text, i - 1, id[i - 1], "{\"n\":\"xxxxxxxxxx\"}");
  memset(large, 'L', sizeof(large));
  tm_row rows[3] = {{.id = id[1], .flags = 1, .body = TM_S("short")},
                    {.id = id[2], .flags = 2, .body = {large, sizeof(large)}},
                    {.id = id[3], .flags = 3, .body = {large, sizeof(large)}}};
  for (int i = 0; i < 3; i++)
    set_text(rows[i].conversation, TM_ID_SIZE, nth(1).text);
  assert_ok(fx, fx->backend->rewrite(fx->writer, rows, 3, &fx->err));
  (void)snprintf(want, sizeof(want), "%lld:3:%.40s %lld:2:%.40s %lld:1:short ", (long long)id[3],
                 large, (long long)id[2], large, (long long)id[1]);
  must_read(fx, id[3], want);
  assert_int_equal(inspect(fx, true).errors, 0);
  fixture_close(fx);
  drop_index(fx);
  fixture_open(fx);
  tm_head head = head_of(fx, nth(1).text);
  assert_int_equal(head.revision, 3);
  assert_int_equal(head.tip, id[3]);
  must_read(fx, head.tip, want);
  int64_t next = turn(fx, nth(1).text, 3, head.tip, "{}");
  assert_true(next > id[3]);
  assert_int_equal(chain_length(fx, 1, next), 4);
  rows[1].body.len = 3000 < sizeof(large) ? 3000 : sizeof(large); /* moved once more, or in place */
  rows[1].flags = 9;
  assert_ok(fx, fx->backend->rewrite(fx->writer, &rows[1], 1, &fx->err));
  assert_int_equal(chain_length(fx, 1, next), 4);
  assert_int_equal(inspect(fx, true).errors, 0);
}

/* ---- a small file that cannot be written ---- */

static path folder_of_session(const fixture *fx, const char *session) {
  path p = session_file(fx, session);
  *strrchr(p.text, '/') = '\0';
  return p;
}

static tm_status see_end(void *ud, const tm_session *session) {
  *(int64_t *)ud = session->ended;
  return TM_OK;
}

static void nothing_happened(fixture *fx) {
  tm_head none;
  int64_t ended = 0;
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(2).text), &none, &fx->err),
                   TM_ENOTFOUND);
  assert_ok(
      fx, fx->backend->session(fx->reader, TM_S("default"), TM_S("s1"), see_end, &ended, &fx->err));
  assert_int_equal(ended, 7);
  assert_int_equal(
      fx->backend->session(fx->reader, TM_S("default"), TM_S("s2"), see_end, &ended, &fx->err),
      TM_ENOTFOUND);
}

/* A turn, a start that opens a session again, and one whose session cannot be made: who was told
 * that it failed tries again, and must not find it done. */
static void what_was_refused_does_not_come_back(void **state) {
  fixture *fx = *state;
  const tm_session made = {.created = fx->now, .look_at = fx->now + 1};
  int64_t first = turn(fx, nth(1).text, 0, 0, "{}");
  assert_ok(fx,
            fx->backend->session_put(
                fx->writer, NULL,
                &(tm_session){.tenant = TM_S("default"), .id = TM_S("s1"), .ended = 7}, &fx->err));
  path obstacle = folder_of_session(fx, "s2");
  set_content(obstacle.text, "", 0);
  tm_row row = row_of(fx, first, "{}"), start = row_of(fx, 0, "{}");
  tm_commit turned = commit_of(fx, nth(1).text, 1, &row);
  tm_commit again = commit_of(fx, nth(2).text, 0, &start);
  tm_commit started = commit_of(fx, nth(3).text, 0, &start);
  set_text(started.head.session, sizeof(started.head.session), "s2");
  again.session = started.session = &made;
  tm_commit *items[] = {&turned, &again, &started};
  assert_int_equal(fx->backend->commit(fx->writer, items, 3, &fx->err), TM_EUNAVAILABLE);
  assert_int_equal(unlink(obstacle.text), 0);
  assert_ok(fx, fx->backend->probe(fx->writer, &fx->err));
  nothing_happened(fx);
  fixture_close(fx);
  drop_index(fx);
  fixture_open(fx);
  nothing_happened(fx);
  assert_int_equal(inspect(fx, true).errors, 0);
  assert_int_equal(fx->backend->commit(fx->writer, items, 3, &fx->err), TM_OK);
}

int main(void) {
  const struct CMUnitTest cases[] = {
      FILE_CASE(logs_are_lines_of_json),
      FILE_CASE(nobody_else_may_read),
      FILE_CASE(larger_records_are_refused),
      FILE_CASE(a_torn_end_is_dropped_at_every_byte),
      FILE_CASE(blanks_at_the_end_are_dropped),
      FILE_CASE(a_log_without_a_commit_is_nothing),
      FILE_CASE(a_crash_tears_nothing),
      FILE_CASE(a_torn_group_never_was),
      FILE_CASE(an_altered_byte_is_damage),
      FILE_CASE(one_session_stops_nobody),
      FILE_CASE(nor_does_an_event_without_a_name),
      FILE_CASE(nor_does_a_tenant_without_one),
      FILE_CASE(nor_does_a_session_without_a_name),
      FILE_CASE(a_frame_of_another_log_is_damage),
      FILE_CASE(a_damaged_end_is_told),
      FILE_CASE(what_cannot_be_read_is_listed_by_its_id),
      FILE_CASE(small_files_that_cannot_be_read_are_told),
      FILE_CASE(a_log_that_lost_its_end_is_not_written),
      FILE_CASE(an_index_that_is_gone_is_made_anew),
      FILE_CASE(a_damaged_index_is_made_anew),
      FILE_CASE(a_new_index_knows_events),
      FILE_CASE(an_old_index_is_noticed),
      FILE_CASE(a_redo_log_that_is_missing_is_told),
      FILE_CASE(foreign_and_newer_folders_are_left_alone),
      FILE_CASE(a_folder_that_is_moved_is_noticed),
      FILE_CASE(rewritten_rows_keep_their_ids),
      FILE_CASE(what_was_refused_does_not_come_back),
  };
  return cmocka_run_group_tests_name("file", cases, NULL, NULL);
}
