/* What every backend must find: start keys, sessions, lists, deadlines, scripts; the same cases
 * over all of backends.def. */
#include "contract.h"

/* ---- start keys and sessions ---- */

static tm_commit start_of(fixture *fx, int n, uint64_t key, const tm_row *row) {
  tm_commit c = commit_of(fx, nth(n).text, 0, row);
  c.start_key = key;
  c.start_body = key + 1;
  return c;
}

static tm_start_key key_of(fixture *fx, const char *tenant, uint64_t key) {
  tm_start_key k;
  assert_ok(fx, fx->backend->start_key(fx->reader, tm__slice(tenant), key, &k, &fx->err));
  return k;
}

static tm_status find_key(fixture *fx, const char *tenant, uint64_t key) {
  tm_start_key k;
  return fx->backend->start_key(fx->reader, tm__slice(tenant), key, &k, &fx->err);
}

static void start_key_answered_at_once(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = start_of(fx, 1, UINT64_MAX, &row);
  c.start_answer = true;
  assert_int_equal(find_key(fx, "default", UINT64_MAX), TM_ENOTFOUND);
  assert_ok(fx, commit_one(fx, &c));
  tm_start_key k = key_of(fx, "default", UINT64_MAX);
  assert_string_equal(k.conversation, nth(1).text);
  assert_true(k.body == 0);
  assert_int_equal(k.row, c.row_id);
  assert_int_equal(k.created, fx->now);
  assert_int_equal(find_key(fx, "other", UINT64_MAX), TM_ENOTFOUND); /* scope: the tenant */
}

static void start_key_answered_later(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = start_of(fx, 1, 7, &row);
  assert_ok(fx, commit_one(fx, &c));
  assert_int_equal(key_of(fx, "default", 7).row, 0);
  tm_row second = row_of(fx, c.row_id, "{}");
  tm_commit answer = commit_of(fx, nth(1).text, 1, &second);
  answer.start_answer = true;
  assert_ok(fx, commit_one(fx, &answer));
  assert_int_equal(key_of(fx, "default", 7).row, answer.row_id);
  tm_commit third = commit_of(fx, nth(1).text, 2, &second);
  third.start_answer = true;
  assert_ok(fx, commit_one(fx, &third));
  assert_int_equal(key_of(fx, "default", 7).row, answer.row_id); /* the first counts */
}

static void taken_start_key_is_a_conflict(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_session session = {.user_id = TM_S("u"), .created = fx->now};
  tm_commit first = start_of(fx, 1, 7, &row), second = start_of(fx, 2, 7, &row),
            other = start_of(fx, 3, 7, &row), third = start_of(fx, 4, 8, &row);
  set_text(other.head.tenant, sizeof(other.head.tenant), "other");
  set_text(second.head.session, sizeof(second.head.session), "s2");
  second.session = &session;
  tm_commit *items[] = {&first, &second, &other, &third};
  assert_ok(fx, fx->backend->commit(fx->writer, items, 4, &fx->err));
  assert_int_equal(first.status, TM_OK);
  assert_int_equal(second.status, TM_ECONFLICT);
  assert_int_equal(other.status, TM_OK);
  assert_int_equal(third.status, TM_OK);
  tm_head head;
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(2).text), &head, NULL),
                   TM_ENOTFOUND);
  assert_string_equal(key_of(fx, "default", 7).conversation, nth(1).text);
  assert_string_equal(key_of(fx, "other", 7).conversation, nth(3).text);
  assert_int_equal(fx->backend->session(fx->reader, TM_S("default"), TM_S("s2"), NULL, NULL, NULL),
                   TM_ENOTFOUND);
}

static void start_key_of_a_conflict_is_free(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  turn(fx, nth(1).text, 0, 0, "{}");
  tm_commit c = start_of(fx, 1, 7, &row); /* the conversation exists */
  assert_int_equal(commit_one(fx, &c), TM_ECONFLICT);
  assert_int_equal(find_key(fx, "default", 7), TM_ENOTFOUND);
}

static void a_conversation_knows_its_start_key(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = start_of(fx, 1, UINT64_MAX, &row);
  uint64_t key = 0;
  tm_start_key k;
  assert_ok(fx, commit_one(fx, &c));
  assert_ok(fx, b->key_of(fx->reader, tm__slice(nth(1).text), &key, &k, &fx->err));
  assert_true(key == UINT64_MAX);
  assert_true(k.body == c.start_body);
  assert_int_equal(k.row, 0);
  assert_int_equal(k.created, fx->now);
  assert_string_equal(k.conversation, nth(1).text);
  tm_row answer = row_of(fx, c.row_id, "{}");
  tm_commit second = commit_of(fx, nth(1).text, 1, &answer);
  second.start_answer = true;
  assert_ok(fx, commit_one(fx, &second));
  assert_ok(fx, b->key_of(fx->reader, tm__slice(nth(1).text), &key, &k, &fx->err));
  assert_int_equal(k.row, second.row_id);
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  assert_int_equal(b->key_of(fx->reader, tm__slice(nth(2).text), &key, &k, NULL), TM_ENOTFOUND);
  assert_int_equal(b->key_of(fx->reader, TM_S("none"), &key, &k, NULL), TM_ENOTFOUND);
  fx->now += TM_KEY_AGE_MS + 1;
  assert_int_equal(b->key_of(fx->reader, tm__slice(nth(1).text), &key, &k, NULL), TM_ENOTFOUND);
  tm_commit late = start_of(fx, 3, UINT64_MAX, &row); /* the key is another's now */
  assert_ok(fx, commit_one(fx, &late));
  assert_int_equal(b->key_of(fx->reader, tm__slice(nth(1).text), &key, &k, NULL), TM_ENOTFOUND);
  assert_ok(fx, b->key_of(fx->reader, tm__slice(nth(3).text), &key, &k, &fx->err));
}

static void start_keys_last_a_day(void **state) {
  fixture *fx = *state;
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = start_of(fx, 1, 7, &row);
  assert_ok(fx, commit_one(fx, &c));
  fx->now += TM_KEY_AGE_MS;
  assert_int_equal(find_key(fx, "default", 7), TM_OK);
  tm_commit early = start_of(fx, 2, 7, &row);
  assert_int_equal(commit_one(fx, &early), TM_ECONFLICT);
  fx->now += 1;
  assert_int_equal(find_key(fx, "default", 7), TM_ENOTFOUND);
  tm_commit late = start_of(fx, 2, 7, &row);
  late.start_answer = true;
  assert_ok(fx, commit_one(fx, &late));
  tm_start_key k = key_of(fx, "default", 7);
  assert_string_equal(k.conversation, nth(2).text);
  assert_int_equal(k.row, late.row_id);
  assert_int_equal(k.created, fx->now);
  tm_row second = row_of(fx, c.row_id, "{}");
  tm_commit answer = commit_of(fx, nth(1).text, 1, &second); /* of the one that lost its key */
  answer.start_answer = true;
  assert_ok(fx, commit_one(fx, &answer));
  assert_int_equal(key_of(fx, "default", 7).row, late.row_id);
}

static void many_old_keys_go_in_batches(void **state) {
  fixture *fx = *state;
  for (int i = 0; i < 100; i++) {
    tm_commit c = start_of(fx, i, (uint64_t)i + 1, NULL);
    assert_ok(fx, commit_one(fx, &c));
    fx->now++;
  }
  fx->now += TM_KEY_AGE_MS;
  for (int i = 0; i < 8; i++) {
    tm_commit c = start_of(fx, 1000 + i, UINT64_C(1000) + (uint64_t)i, NULL);
    assert_ok(fx, commit_one(fx, &c));
  }
  bool more = true;
  while (more)
    assert_ok(fx, fx->backend->sweep(fx->writer, 32, &more, &fx->err));
  fx->now -= TM_KEY_AGE_MS; /* the clock tells which ones are really gone */
  for (uint64_t i = 1; i <= 100; i++)
    assert_int_equal(find_key(fx, "default", i), TM_ENOTFOUND);
  assert_int_equal(find_key(fx, "default", 1007), TM_OK);
}

typedef struct session_seen {
  char user[32], metadata[64];
  bool has_user, has_metadata;
} session_seen;

static tm_status see_session(void *ud, const tm_session *s) {
  session_seen *seen_ = ud;
  *seen_ =
      (session_seen){.has_user = s->user_id.ptr != NULL, .has_metadata = s->metadata.ptr != NULL};
  assert_true(tm__copy(seen_->user, sizeof(seen_->user), s->user_id));
  assert_true(tm__copy(seen_->metadata, sizeof(seen_->metadata), s->metadata));
  return TM_OK;
}

static void start_in_session(fixture *fx, int n, const char *tenant, const char *session,
                             tm_session kept) {
  tm_commit c = commit_of(fx, nth(n).text, 0, NULL);
  set_text(c.head.tenant, sizeof(c.head.tenant), tenant);
  set_text(c.head.session, sizeof(c.head.session), session);
  c.session = &kept;
  assert_ok(fx, commit_one(fx, &c));
}

static session_seen session_of(fixture *fx, const char *tenant, const char *id) {
  session_seen s;
  assert_ok(fx, fx->backend->session(fx->reader, tm__slice(tenant), tm__slice(id), see_session, &s,
                                     &fx->err));
  return s;
}

static void sessions_are_made_once(void **state) {
  fixture *fx = *state;
  start_in_session(fx, 1, "default", "a",
                   (tm_session){.user_id = TM_S("ann"), .metadata = TM_S("{\"x\":\"\xc3\xa9'\"}")});
  start_in_session(fx, 2, "default", "a",
                   (tm_session){.user_id = TM_S("bob"), .metadata = TM_S("{}")});
  start_in_session(fx, 3, "default", "b", (tm_session){.created = 1});
  start_in_session(fx, 4, "other", "a", (tm_session){.user_id = TM_S("")});
  session_seen s = session_of(fx, "default", "a");
  assert_string_equal(s.user, "ann");
  assert_string_equal(s.metadata, "{\"x\":\"\xc3\xa9'\"}");
  s = session_of(fx, "default", "b");
  assert_false(s.has_user || s.has_metadata);
  s = session_of(fx, "other", "a");
  assert_true(s.has_user && !s.has_metadata);
  assert_int_equal(
      fx->backend->session(fx->reader, TM_S("other"), TM_S("b"), see_session, &s, &fx->err),
      TM_ENOTFOUND);
}

/* ---- lists and deadlines ---- */

static void fill_lists(fixture *fx) {
  for (int i = 0; i < 24; i++) { /* even ids; the filters cut across each other */
    tm_commit c = commit_of(fx, nth(2 * i).text, 0, NULL);
    set_text(c.head.tenant, sizeof(c.head.tenant), i < 20 ? "default" : "other");
    set_text(c.head.session, sizeof(c.head.session), i % 2 == 0 ? "s1" : "s2");
    set_text(c.head.system, sizeof(c.head.system), i % 3 == 0 ? "shop" : "clinic");
    set_text(c.head.flow, sizeof(c.head.flow), i % 5 == 0 ? "returns" : "orders");
    c.head.status = i % 4 == 0 ? TM_COMPLETED : TM_ACTIVE;
    assert_ok(fx, commit_one(fx, &c));
  }
}

static bool in_list(int i, unsigned mask) {
  return i < 20 && (!(mask & 1) || i % 2 == 0) && (!(mask & 2) || i % 3 == 0) &&
         (!(mask & 4) || i % 5 == 0) && (!(mask & 8) || i % 4 == 0);
}

static void lists_filter_and_page(void **state) {
  fixture *fx = *state;
  fill_lists(fx);
  for (unsigned mask = 0; mask < 16; mask++) {
    char before[TM_ID_SIZE] = "";
    int i = 19;
    for (;;) { /* pages of two */
      seen s = {0};
      tm_list_filter f = filter_of(mask, before, 2);
      assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &s, &fx->err));
      for (size_t k = 0; k < s.count; k++, i--) {
        while (!in_list(i, mask))
          i--;
        assert_string_equal(s.ids[k], nth(2 * i).text);
      }
      if (s.count < 2) break;
      memcpy(before, s.ids[1], sizeof(before));
    }
    while (i >= 0 && !in_list(i, mask))
      i--;
    assert_int_equal(i, -1);
  }
}

static void lists_have_edges(void **state) {
  fixture *fx = *state;
  fill_lists(fx);
  seen none = {0}, between = {0}, stopped = {.stop_at = 3};
  tm_list_filter f = filter_of(0, "", 0);
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &none, &fx->err));
  f = filter_of(0, nth(0).text, 10);
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &none, &fx->err));
  f.tenant = TM_S("nobody");
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &none, &fx->err));
  assert_int_equal(none.count, 0);
  f = filter_of(0, nth(5).text, 10); /* an id that is not there */
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &between, &fx->err));
  assert_int_equal(between.count, 3);
  assert_string_equal(between.ids[0], nth(4).text);
  f = filter_of(0, "", SIZE_MAX);
  assert_int_equal(fx->backend->list(fx->reader, &f, see_head, &stopped, NULL), TM_ECANCELLED);
  assert_int_equal(stopped.count, 3);
}

static void status_lists_follow_changes(void **state) {
  fixture *fx = *state;
  fill_lists(fx);
  tm_commit c = commit_of(fx, nth(0).text, 1, NULL);
  c.head.status = TM_FAILED;
  assert_ok(fx, commit_one(fx, &c));
  seen failed = {0}, completed = {0};
  tm_list_filter f = filter_of(0, "", 50);
  f.status = TM_FAILED;
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &failed, &fx->err));
  assert_int_equal(failed.count, 1);
  f.status = TM_COMPLETED;
  assert_ok(fx, fx->backend->list(fx->reader, &f, see_head, &completed, &fx->err));
  assert_int_equal(completed.count, 4);
}

static void set_wake(fixture *fx, int n, int64_t expect, int64_t wake_at) {
  tm_commit c = commit_of(fx, nth(n).text, expect, NULL);
  c.head.wake_at = wake_at;
  assert_ok(fx, commit_one(fx, &c));
}

static int64_t next_due(fixture *fx) {
  int64_t when = -1;
  assert_ok(fx, fx->backend->next_due(fx->reader, &when, &fx->err));
  return when;
}

static void deadlines_come_in_order(void **state) {
  fixture *fx = *state;
  assert_int_equal(next_due(fx), 0);
  const int64_t wakes[] = {300, 100, 0, 200, 100, 900};
  for (int i = 0; i < 6; i++)
    set_wake(fx, i, 0, wakes[i]);
  seen s = {0}, two = {0}, early = {0}, stopped = {.stop_at = 1};
  assert_int_equal(next_due(fx), 100);
  assert_ok(fx, fx->backend->due(fx->writer, 300, 0, 10, see_head, &s, &fx->err));
  assert_int_equal(s.count, 4);
  const int order[] = {1, 4, 3, 0};
  for (int i = 0; i < 4; i++)
    assert_string_equal(s.ids[i], nth(order[i]).text);
  assert_ok(fx, fx->backend->due(fx->writer, 300, 0, 2, see_head, &two, &fx->err));
  assert_int_equal(two.count, 2);
  assert_ok(fx, fx->backend->due(fx->writer, 99, 0, 10, see_head, &early, &fx->err));
  assert_ok(fx, fx->backend->due(fx->writer, 300, 0, 0, see_head, &early, &fx->err));
  assert_int_equal(early.count, 0);
  assert_int_equal(fx->backend->due(fx->writer, 300, 0, 9, see_head, &stopped, NULL),
                   TM_ECANCELLED);
}

static void deadlines_move(void **state) {
  fixture *fx = *state;
  set_wake(fx, 1, 0, 500);
  set_wake(fx, 2, 0, 600);
  set_wake(fx, 1, 1, 700);
  assert_int_equal(next_due(fx), 600);
  set_wake(fx, 2, 1, 0);
  assert_int_equal(next_due(fx), 700);
  tm_commit claimed = commit_of(fx, nth(1).text, 2, NULL); /* deadline and claim at once */
  set_text(claimed.head.claim, sizeof(claimed.head.claim), nth(900).text);
  claimed.head.wake_at = 50;
  assert_ok(fx, commit_one(fx, &claimed));
  assert_int_equal(next_due(fx), 50);
  tm_commit done = commit_of(fx, nth(1).text, 3, NULL);
  done.head.status = TM_COMPLETED;
  assert_ok(fx, commit_one(fx, &done));
  assert_int_equal(next_due(fx), 0);
}

static void living_claims_are_left_alone(void **state) {
  fixture *fx = *state;
  tm_commit c = commit_of(fx, nth(1).text, 0, NULL);
  set_text(c.head.claim, sizeof(c.head.claim), nth(900).text);
  c.head.wake_at = 5000;
  assert_ok(fx, commit_one(fx, &c));
  int64_t taken = -1;
  assert_ok(fx, fx->backend->recover(fx->writer, 10, &taken, &fx->err));
  assert_int_equal(taken, 0);
  assert_int_equal(next_due(fx), 5000);
}

/* ---- scripts ---- */

static void scripts_are_kept_once(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_buf out = {0};
  tm_slice name = TM_S("shop");
  assert_ok(fx,
            b->script_put(fx->writer, name, TM_S("v1"), TM_S("return 'x' -- \xc3\xa9"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, name, TM_S("v2"), TM_S(""), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, name, TM_S("v1"), TM_S("changed"), &fx->err));
  tm__buf_text(&out, "> ");
  assert_ok(fx, b->script_get(fx->reader, name, TM_S("v1"), &out, &fx->err));
  assert_string_equal(out.ptr, "> return 'x' -- \xc3\xa9");
  tm__buf_clear(&out);
  assert_ok(fx, b->script_get(fx->reader, name, TM_S("v2"), &out, &fx->err));
  assert_int_equal(out.len, 0);
  assert_int_equal(b->script_get(fx->reader, name, TM_S("v3"), &out, &fx->err), TM_ENOTFOUND);
  assert_int_equal(b->script_get(fx->reader, TM_S("shopv"), TM_S("1"), &out, NULL), TM_ENOTFOUND);
  tm__buf_free(&out);
}

typedef struct use {
  tm_slice version;
  int64_t used;
  int count;
} use;

static tm_status see_use(void *ud, tm_slice system, tm_slice version, int64_t used) {
  use *u = ud;
  u->count++;
  assert_true(tm__slice_is(system, "shop"));
  if (tm__slice_eq(version, u->version)) u->used = used;
  return TM_OK;
}

/* -1: there is no such version among `count`. */
static int64_t used_of(fixture *fx, const char *version, int count) {
  use u = {.version = tm__slice(version), .used = -1};
  assert_ok(fx, fx->backend->scripts(fx->reader, see_use, &u, &fx->err));
  assert_int_equal(u.count, count);
  return u.used;
}

static void scripts_know_their_last_use(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_slice name = TM_S("shop");
  int64_t begun = fx->now;
  assert_ok(fx, b->script_put(fx->writer, name, TM_S("v1"), TM_S("one"), &fx->err));
  fx->now += 1000;
  assert_ok(fx, b->script_put(fx->writer, name, TM_S("v2"), TM_S("two"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, name, TM_S("v1"), TM_S("one"), &fx->err));
  assert_int_equal(used_of(fx, "v1", 2), begun);
  assert_int_equal(used_of(fx, "v2", 2), begun + 1000);
  fx->now += 1000;
  assert_ok(fx, b->script_use(fx->writer, name, TM_S("v1"), &fx->err));
  assert_int_equal(used_of(fx, "v1", 2), begun + 2000);
  fx->now = begun; /* the clock of another host is behind */
  assert_ok(fx, b->script_use(fx->writer, name, TM_S("v1"), &fx->err));
  assert_int_equal(used_of(fx, "v1", 2), begun + 2000);
  assert_int_equal(b->script_use(fx->writer, name, TM_S("v3"), &fx->err), TM_ENOTFOUND);
  assert_int_equal(used_of(fx, "v3", 2), -1);
}

static void scripts_go_unless_used_meanwhile(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_buf out = {0};
  tm_slice name = TM_S("shop"), v1 = TM_S("v1"), v2 = TM_S("v2");
  int64_t begun = fx->now;
  assert_ok(fx, b->script_put(fx->writer, name, v1, TM_S("one"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, name, v2, TM_S("two"), &fx->err));
  assert_int_equal(b->script_drop(fx->writer, name, v1, begun - 1, &fx->err), TM_ECONFLICT);
  assert_string_equal(fx->err.code, "store.conflict");
  fx->now += 5000;
  assert_ok(fx, b->script_use(fx->writer, name, v1, &fx->err));
  assert_int_equal(b->script_drop(fx->writer, name, v1, begun, &fx->err), TM_ECONFLICT);
  assert_ok(fx, b->script_drop(fx->writer, name, v2, begun, &fx->err));
  assert_int_equal(used_of(fx, "v1", 1), begun + 5000);
  assert_ok(fx, b->script_get(fx->reader, name, v1, &out, &fx->err));
  assert_int_equal(b->script_get(fx->reader, name, v2, &out, &fx->err), TM_ENOTFOUND);
  assert_int_equal(b->script_drop(fx->writer, name, v2, begun, &fx->err), TM_ENOTFOUND);
  assert_int_equal(b->script_use(fx->writer, name, v2, &fx->err), TM_ENOTFOUND);
  assert_ok(fx, b->script_put(fx->writer, name, v2, TM_S("again"), &fx->err));
  assert_int_equal(used_of(fx, "v2", 2), begun + 5000);
  tm__buf_clear(&out);
  assert_ok(fx, b->script_get(fx->reader, name, v2, &out, &fx->err));
  assert_string_equal(out.ptr, "again");
  tm__buf_free(&out);
}

static const struct CMUnitTest cases[] = {
    CASE(start_key_answered_at_once),
    CASE(start_key_answered_later),
    CASE(taken_start_key_is_a_conflict),
    CASE(start_key_of_a_conflict_is_free),
    CASE(start_keys_last_a_day),
    CASE(a_conversation_knows_its_start_key),
    CASE(many_old_keys_go_in_batches),
    CASE(sessions_are_made_once),
    CASE(lists_filter_and_page),
    CASE(lists_have_edges),
    CASE(status_lists_follow_changes),
    CASE(deadlines_come_in_order),
    CASE(deadlines_move),
    CASE(living_claims_are_left_alone),
    CASE(scripts_are_kept_once),
    CASE(scripts_know_their_last_use),
    CASE(scripts_go_unless_used_meanwhile),
};

int main(void) {
  int failed = 0;
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
