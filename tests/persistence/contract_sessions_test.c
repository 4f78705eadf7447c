/* What every backend must do with sessions: what is kept, counted, listed, looked at, ended; the
 * same cases over all of backends.def. */
#include "contract.h"

typedef struct kept { /* what a walk gave: "tenant/id" in its order, and the newest one whole */
  char names[64][200];
  size_t count, stop_at;
  char user[64], metadata[64];
  bool has_user, has_metadata;
  uint32_t flags;
  int64_t created, look_at, ended;
} kept;

static tm_status keep(void *ud, const tm_session *s) {
  kept *k = ud;
  assert_true(k->count < 64);
  (void)snprintf(k->names[k->count++], sizeof(k->names[0]), "%.*s/%.*s", (int)s->tenant.len,
                 s->tenant.ptr, (int)s->id.len, s->id.ptr);
  memset(k->user, 0, sizeof(k->user));
  memset(k->metadata, 0, sizeof(k->metadata));
  if (s->user_id.len > 0) memcpy(k->user, s->user_id.ptr, s->user_id.len);
  if (s->metadata.len > 0) memcpy(k->metadata, s->metadata.ptr, s->metadata.len);
  k->has_user = s->user_id.ptr != NULL;
  k->has_metadata = s->metadata.ptr != NULL;
  k->flags = s->flags;
  k->created = s->created;
  k->look_at = s->look_at;
  k->ended = s->ended;
  return k->count == k->stop_at ? TM_ECANCELLED : TM_OK;
}

static kept session_of(fixture *fx, const char *tenant, const char *id) {
  kept k = {0};
  assert_ok(fx,
            fx->backend->session(fx->reader, tm__slice(tenant), tm__slice(id), keep, &k, &fx->err));
  assert_int_equal(k.count, 1);
  return k;
}

static tm_status find_session(fixture *fx, const char *tenant, const char *id) {
  kept k = {0};
  return fx->backend->session(fx->reader, tm__slice(tenant), tm__slice(id), keep, &k, &fx->err);
}

/* Starts conversation n in a session; what the commit said. */
static tm_status start(fixture *fx, int n, const char *tenant, const char *id, tm_session session,
                       int64_t most, int64_t tenant_most) {
  tm_commit c = commit_of(fx, nth(n).text, 0, NULL);
  set_text(c.head.tenant, sizeof(c.head.tenant), tenant);
  set_text(c.head.session, sizeof(c.head.session), id);
  c.session = &session;
  c.sessions_max = most;
  c.tenant_sessions_max = tenant_most;
  return commit_one(fx, &c);
}

static void put(fixture *fx, const char *tenant, const char *id, int64_t created, int64_t look_at,
                int64_t ended) {
  const tm_session s = {.tenant = tm__slice(tenant),
                        .id = tm__slice(id),
                        .created = created,
                        .look_at = look_at,
                        .ended = ended};
  assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &s, &fx->err));
}

/* ---- one session ---- */

static void a_session_comes_back_whole(void **state) {
  fixture *fx = *state;
  const tm_session s = {.tenant = TM_S("default"),
                        .id = TM_S("it's \"x\" \xc3\xa9%;--"),
                        .user_id = {"\0\xff{'\"\x80", 6},
                        .metadata = {"", 0},
                        .flags = UINT32_MAX,
                        .created = INT64_C(1) << 50,
                        .look_at = 7,
                        .ended = 8};
  assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &s, &fx->err));
  kept k = session_of(fx, "default", s.id.ptr);
  assert_string_equal(k.names[0], "default/it's \"x\" \xc3\xa9%;--");
  assert_memory_equal(k.user, s.user_id.ptr, 6);
  assert_true(k.has_user && k.has_metadata);
  assert_true(k.flags == UINT32_MAX && k.created == INT64_C(1) << 50);
  assert_true(k.look_at == 7 && k.ended == 8);
  assert_int_equal(find_session(fx, "default", "it's"), TM_ENOTFOUND);
  assert_int_equal(find_session(fx, "other", s.id.ptr), TM_ENOTFOUND);
}

static void put_replaces(void **state) {
  fixture *fx = *state;
  const tm_session made = {.user_id = TM_S("ann"), .created = 5, .look_at = 6};
  assert_ok(fx, start(fx, 1, "default", "a", made, 0, 0));
  const tm_session s = {.tenant = TM_S("default"),
                        .id = TM_S("a"),
                        .metadata = TM_S("{\"x\":1}"),
                        .flags = 3,
                        .created = 9};
  assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &s, &fx->err));
  kept k = session_of(fx, "default", "a");
  assert_true(!k.has_user && k.has_metadata && k.flags == 3);
  assert_string_equal(k.metadata, "{\"x\":1}");
  assert_true(k.created == 9 && k.look_at == 0 && k.ended == 0);
}

static tm_status put_after(fixture *fx, const tm_session *expect, const tm_session *session) {
  return fx->backend->session_put(fx->writer, expect, session, &fx->err);
}

/* Every member counts, and a text that is empty is not one that is missing. */
static void put_compares_first(void **state) {
  fixture *fx = *state;
  const tm_session s = {.tenant = TM_S("default"),
                        .id = TM_S("it's {a}"),
                        .user_id = {"\0\xff", 2},
                        .flags = 3,
                        .created = INT64_C(1) << 50,
                        .look_at = 7,
                        .ended = 8};
  tm_session others[] = {s, s, s, s, s, s, s, s}, next = s;
  others[0].user_id.len = 1;
  others[1].user_id.ptr = "\0\xfe";
  others[2].user_id = (tm_slice){NULL, 0};
  others[3].metadata = TM_S("");
  others[4].flags = 2;
  others[5].created++;
  others[6].look_at = 0;
  others[7].ended = 0;
  assert_int_equal(put_after(fx, &s, &s), TM_ECONFLICT); /* there is none */
  assert_string_equal(fx->err.code, "store.conflict");
  assert_int_equal(find_session(fx, "default", s.id.ptr), TM_ENOTFOUND);
  assert_ok(fx, put_after(fx, NULL, &s));
  next.metadata = TM_S("");
  next.look_at = 9;
  for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
    assert_int_equal(put_after(fx, &others[i], &next), TM_ECONFLICT);
  assert_string_equal(fx->err.code, "store.conflict");
  kept k = session_of(fx, "default", s.id.ptr);
  assert_true(k.look_at == 7 && !k.has_metadata);
  assert_ok(fx, put_after(fx, &s, &next));
  assert_int_equal(put_after(fx, &s, &next), TM_ECONFLICT);
  k = session_of(fx, "default", s.id.ptr);
  assert_true(k.look_at == 9 && k.has_metadata && k.ended == 8);
  assert_ok(fx, put_after(fx, &next, &s));
  assert_ok(fx, fx->backend->session_drop(fx->writer, s.tenant, s.id, &fx->err));
  assert_int_equal(put_after(fx, &s, &next), TM_ECONFLICT);
  assert_int_equal(find_session(fx, "default", s.id.ptr), TM_ENOTFOUND);
}

/* Between its reading and its writing a conversation has opened it again; what it counts for is as
 * it was. */
static void a_comparison_sees_who_opens_it(void **state) {
  fixture *fx = *state;
  const tm_session made = {.created = 5, .look_at = 6};
  tm_session open = {
      .tenant = TM_S("default"), .id = TM_S("a"), .created = 5, .look_at = 6, .ended = 0};
  tm_session over = open, later = open;
  over.ended = 9;
  later.look_at = 60;
  assert_ok(fx, start(fx, 1, "default", "a", made, 1, 0));
  assert_ok(fx, put_after(fx, &open, &over));
  assert_ok(fx, start(fx, 2, "default", "b", made, 1, 0));
  put(fx, "default", "b", 1, 0, 50);
  assert_ok(fx, start(fx, 3, "default", "a", made, 1, 0));
  assert_int_equal(put_after(fx, &over, &later), TM_ECONFLICT);
  assert_int_equal(start(fx, 4, "default", "c", made, 1, 0), TM_ELIMIT);
  assert_ok(fx, put_after(fx, &open, &later));
  assert_int_equal(session_of(fx, "default", "a").look_at, 60);
  assert_int_equal(start(fx, 4, "default", "c", made, 1, 0), TM_ELIMIT);
}

static void an_ended_session_opens_again(void **state) {
  fixture *fx = *state;
  tm_session s = {.user_id = TM_S("ann"), .created = 5, .look_at = 100};
  assert_ok(fx, start(fx, 1, "default", "a", s, 0, 0));
  s.user_id = TM_S("bob");
  s.look_at = 200;
  assert_ok(fx, start(fx, 2, "default", "a", s, 0, 0));
  kept k = session_of(fx, "default", "a");
  assert_string_equal(k.user, "ann"); /* it exists and is open: as it was */
  assert_true(k.created == 5 && k.look_at == 100 && k.ended == 0);
  const tm_session ended = {.tenant = TM_S("default"),
                            .id = TM_S("a"),
                            .user_id = TM_S("ann"),
                            .created = 5,
                            .ended = 77};
  assert_ok(fx, fx->backend->session_put(fx->writer, NULL, &ended, &fx->err));
  s.look_at = 300;
  assert_ok(fx, start(fx, 3, "default", "a", s, 0, 0));
  k = session_of(fx, "default", "a");
  assert_string_equal(k.user, "ann");
  assert_true(k.created == 5 && k.look_at == 300 && k.ended == 0);
}

static void a_lost_commit_makes_no_session(void **state) {
  fixture *fx = *state;
  turn(fx, nth(1).text, 0, 0, "{}");
  assert_int_equal(start(fx, 1, "default", "mine", (tm_session){.created = 1}, 0, 0), TM_ECONFLICT);
  assert_int_equal(find_session(fx, "default", "mine"), TM_ENOTFOUND);
}

/* Nor does it open one that has ended: neither lists nor limits see anything of it. */
static void a_lost_commit_opens_no_session(void **state) {
  fixture *fx = *state;
  const tm_session_filter open = {.tenant = TM_S("default"), .ended = 0, .limit = 9},
                          all = {.limit = 9};
  turn(fx, nth(1).text, 0, 0, "{}");
  put(fx, "default", "mine", 1, 50, 40);
  for (int i = 0; i < 2; i++) {
    kept k = {0};
    const tm_session again = {.created = 1, .look_at = 99};
    assert_int_equal(start(fx, 1, "default", "mine", again, 0, 0), TM_ECONFLICT);
    kept mine = session_of(fx, "default", "mine");
    assert_true(mine.ended == 40 && mine.look_at == 50);
    assert_ok(fx, fx->backend->sessions(fx->reader, &open, keep, &k, &fx->err));
    assert_ok(fx, fx->backend->sessions(fx->reader, &all, keep, &k, &fx->err));
    assert_int_equal(k.count, 0);
    assert_ok(fx, fx->backend->sessions_due(fx->reader, 49, 9, keep, &k, &fx->err));
    assert_int_equal(k.count, 0);
    assert_ok(fx, fx->backend->sessions_due(fx->reader, 50, 9, keep, &k, &fx->err));
    assert_int_equal(k.count, 1);
  }
  const tm_session other = {.created = 2};
  assert_ok(fx, start(fx, 2, "default", "other", other, 1, 1)); /* there is room for it */
  assert_ok(fx, start(fx, 3, "default", "mine", other, 2, 2));
  assert_int_equal(session_of(fx, "default", "mine").ended, 0);
  assert_int_equal(start(fx, 4, "default", "third", other, 2, 0), TM_ELIMIT);
}

static void sessions_in_use_stay(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  assert_ok(fx, start(fx, 1, "default", "a", (tm_session){.created = 1}, 0, 0));
  put(fx, "default", "a2", 1, 0, 0);
  put(fx, "other", "a", 1, 0, 0);
  assert_int_equal(b->session_drop(fx->writer, TM_S("default"), TM_S("a"), &fx->err), TM_ECONFLICT);
  assert_string_equal(fx->err.code, "store.session_in_use");
  assert_ok(fx, b->session_drop(fx->writer, TM_S("other"), TM_S("a"), &fx->err));
  assert_ok(fx, b->session_drop(fx->writer, TM_S("default"), TM_S("a2"), &fx->err));
  assert_ok(fx, b->session_drop(fx->writer, TM_S("default"), TM_S("none"), &fx->err));
  assert_int_equal(find_session(fx, "other", "a"), TM_ENOTFOUND);
  assert_int_equal(find_session(fx, "default", "a2"), TM_ENOTFOUND);
  assert_ok(fx, b->purge(fx->writer, tm__slice(nth(1).text), 1, true, &fx->err));
  assert_int_equal(find_session(fx, "default", "a"), TM_OK); /* it outlives its conversations */
  assert_ok(fx, b->session_drop(fx->writer, TM_S("default"), TM_S("a"), &fx->err));
  assert_int_equal(find_session(fx, "default", "a"), TM_ENOTFOUND);
}

/* ---- limits ---- */

static void open_sessions_are_limited(void **state) {
  fixture *fx = *state;
  const tm_session s = {.created = 1};
  tm_head head;
  assert_ok(fx, start(fx, 1, "default", "a", s, 2, 0));
  assert_ok(fx, start(fx, 2, "other", "a", s, 2, 0));
  assert_int_equal(start(fx, 3, "default", "b", s, 2, 0), TM_ELIMIT);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(3).text), &head, NULL),
                   TM_ENOTFOUND);
  assert_int_equal(find_session(fx, "default", "b"), TM_ENOTFOUND);
  assert_ok(fx, start(fx, 3, "default", "a", s, 2, 0)); /* no session more */
  put(fx, "other", "a", 1, 0, 50);                      /* ended */
  assert_ok(fx, start(fx, 4, "default", "b", s, 2, 0));
  assert_int_equal(start(fx, 5, "other", "a", s, 2, 0), TM_ELIMIT); /* open again: one more */
  assert_ok(fx, start(fx, 5, "other", "a", s, 3, 0));
  assert_ok(fx, start(fx, 6, "other", "free", s, 0, 0)); /* no limit */
}

static void each_tenant_has_its_limit(void **state) {
  fixture *fx = *state;
  const tm_session s = {.created = 1};
  assert_ok(fx, start(fx, 1, "default", "a", s, 0, 1));
  assert_int_equal(start(fx, 2, "default", "b", s, 0, 1), TM_ELIMIT);
  assert_ok(fx, start(fx, 2, "other", "b", s, 0, 1));
  assert_ok(fx, start(fx, 3, "default", "b", s, 0, 2));
  assert_int_equal(start(fx, 4, "default", "c", s, 100, 2), TM_ELIMIT);
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(3).text), 1, true, &fx->err));
  assert_ok(fx, fx->backend->session_drop(fx->writer, TM_S("default"), TM_S("b"), &fx->err));
  assert_ok(fx, start(fx, 4, "default", "c", s, 100, 2));
}

/* The items of one transaction count for those behind them. */
static void limits_hold_within_a_group(void **state) {
  fixture *fx = *state;
  const tm_session s = {.created = 1};
  tm_commit commits[6], *items[6];
  for (int i = 0; i < 6; i++) {
    commits[i] = commit_of(fx, nth(i).text, 0, NULL);
    (void)snprintf(commits[i].head.session, sizeof(commits[i].head.session), "s%d", i / 2);
    commits[i].session = &s;
    commits[i].sessions_max = 2;
    items[i] = &commits[i];
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, 6, &fx->err));
  for (int i = 0; i < 6; i++)
    assert_int_equal(commits[i].status, i < 4 ? TM_OK : TM_ELIMIT);
}

/* A key that is taken says so, whatever the limit: its repeat gets the first answer. */
static void a_taken_key_comes_before_the_limit(void **state) {
  fixture *fx = *state;
  const tm_session s = {.created = 1};
  tm_commit first = commit_of(fx, nth(1).text, 0, NULL);
  first.session = &s;
  first.start_key = 7;
  first.sessions_max = 1;
  assert_ok(fx, commit_one(fx, &first));
  tm_commit again = commit_of(fx, nth(2).text, 0, NULL);
  set_text(again.head.session, sizeof(again.head.session), "another");
  again.session = &s;
  again.start_key = 7;
  again.sessions_max = 1;
  assert_int_equal(commit_one(fx, &again), TM_ECONFLICT);
}

/* ---- lists ---- */

static bool wanted(int i, int ended) {
  return ended < 0 || (i % 3 == 0) == (ended > 0);
}

static void sessions_list_and_page(void **state) {
  fixture *fx = *state;
  enum { COUNT = 20 };
  char ids[COUNT][16];
  for (int i = 0; i < COUNT; i++) { /* two of each age: then the id decides */
    (void)snprintf(ids[i], sizeof(ids[i]), "s%03d", i);
    put(fx, "default", ids[i], 1000 + i / 2, 0, i % 3 == 0 ? 9 : 0);
    put(fx, "other", ids[i], 1000 + i, 0, 0);
  }
  for (int ended = -1; ended <= 1; ended++) {
    tm_session_filter f = {.tenant = TM_S("default"), .ended = ended, .limit = 3};
    char before[16];
    int i = COUNT - 1;
    for (kept k = {0};; k.count = 0) {
      assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &k, &fx->err));
      for (size_t n = 0; n < k.count; n++, i--) {
        while (!wanted(i, ended))
          i--;
        assert_string_equal(strchr(k.names[n], '/') + 1, ids[i]);
        assert_memory_equal(k.names[n], "default/", 8);
      }
      if (k.count < 3) break;
      set_text(before, sizeof(before), strchr(k.names[2], '/') + 1);
      f.before_created = k.created;
      f.before_id = tm__slice(before);
    }
    while (i >= 0 && !wanted(i, ended))
      i--;
    assert_int_equal(i, -1);
  }
}

typedef struct long_list {
  fixture *fx;
  size_t count;
} long_list;

/* With the first of them the last goes. */
static tm_status drop_the_last(void *ud, const tm_session *s) {
  long_list *l = ud;
  (void)s;
  if (l->count++ == 0)
    assert_ok(l->fx, l->fx->backend->session_drop(l->fx->writer, TM_S("default"), TM_S("s000"),
                                                  &l->fx->err));
  return TM_OK;
}

/* However many there are, they are not held all at once; files show how it was when the list began.
 */
static void long_lists_are_read_in_pieces(void **state) {
  fixture *fx = *state;
  const tm_session_filter all = {.tenant = TM_S("default"), .ended = -1, .limit = 1000};
  long_list l = {.fx = fx};
  bool snapshot = strcmp(fx->backend->scheme, "file") == 0;
  for (int i = 0; i < 120; i++) {
    char id[16];
    (void)snprintf(id, sizeof(id), "s%03d", i);
    put(fx, "default", id, 1000 + i, 0, 0);
  }
  assert_ok(fx, fx->backend->sessions(fx->reader, &all, drop_the_last, &l, &fx->err));
  assert_int_equal(l.count, snapshot ? 120 : 119);
}

/* Of all tenants: each once, in whatever order. */
static void sessions_of_all_tenants(void **state) {
  fixture *fx = *state;
  char id[16], tenant[16], before[2][16];
  bool seen_[24] = {0};
  for (int i = 0; i < 24; i++) {
    (void)snprintf(id, sizeof(id), "s%d", i);
    (void)snprintf(tenant, sizeof(tenant), "t%d", i % 5);
    put(fx, tenant, id, 1000 + i / 4, 0, i % 2);
  }
  size_t total = 0;
  tm_session_filter f = {.ended = -1, .limit = 5};
  for (kept k = {0};; k.count = 0) {
    assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &k, &fx->err));
    for (size_t n = 0; n < k.count; n++) {
      int i = -1, t = -1;
      assert_int_equal(sscanf(k.names[n], "t%d/s%d", &t, &i), 2);
      assert_in_range(i, 0, 23);
      assert_int_equal(t, i % 5);
      assert_false(seen_[i]);
      seen_[i] = true;
    }
    total += k.count;
    if (k.count < 5) break;
    char *slash = strchr(k.names[4], '/');
    set_text(before[1], sizeof(before[1]), slash + 1);
    *slash = '\0';
    set_text(before[0], sizeof(before[0]), k.names[4]);
    f.before_created = k.created;
    f.before_tenant = tm__slice(before[0]);
    f.before_id = tm__slice(before[1]);
  }
  assert_int_equal(total, 24);
  f = (tm_session_filter){.ended = 1, .limit = 64};
  kept over = {0};
  assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &over, &fx->err));
  assert_int_equal(over.count, 12);
}

static void lists_of_sessions_have_edges(void **state) {
  fixture *fx = *state;
  kept none = {0}, one = {.stop_at = 1};
  for (int i = 1; i <= 3; i++)
    put(fx, "default", i == 1 ? "a" : i == 2 ? "b" : "c", i, 0, 0);
  tm_session_filter f = {.tenant = TM_S("default"), .ended = -1, .limit = 0};
  assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &none, &fx->err));
  f = (tm_session_filter){.tenant = TM_S("nobody"), .ended = -1, .limit = 9};
  assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &none, &fx->err));
  f = (tm_session_filter){.tenant = TM_S("default"), .ended = 1, .limit = 9};
  assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &none, &fx->err));
  assert_int_equal(none.count, 0);
  f = (tm_session_filter){.tenant = TM_S("default"), .ended = 0, .limit = SIZE_MAX};
  assert_int_equal(fx->backend->sessions(fx->reader, &f, keep, &one, NULL), TM_ECANCELLED);
  assert_string_equal(one.names[0], "default/c");
}

/* Ids that sort oddly: by their bytes, newest first among those of one age. */
static void odd_ids_sort_by_bytes(void **state) {
  fixture *fx = *state;
  static const char *const sorted[] = {"\xf4\x8f\xbf\xbf",
                                       "\xe2\x82\xac",
                                       "\xc3\xa9",
                                       "~",
                                       "ab",
                                       "a%",
                                       "a",
                                       "_",
                                       "Z",
                                       "B",
                                       "9",
                                       "10",
                                       "1' OR",
                                       "-",
                                       "%",
                                       "\"",
                                       " "};
  enum { COUNT = sizeof(sorted) / sizeof(sorted[0]) };
  for (size_t i = 0; i < COUNT; i++)
    if (i != 0) put(fx, "default", sorted[i * 7 % COUNT], 5, 1, 0);
  put(fx, "default", sorted[0 * 7 % COUNT], 5, 1, 0);
  kept k = {0};
  const tm_session_filter f = {.tenant = TM_S("default"), .ended = 0, .limit = 64};
  assert_ok(fx, fx->backend->sessions(fx->reader, &f, keep, &k, &fx->err));
  assert_int_equal(k.count, COUNT);
  for (size_t i = 0; i < COUNT; i++)
    assert_string_equal(strchr(k.names[i], '/') + 1, sorted[i]);
}

/* ---- when they are looked at ---- */

static size_t due(fixture *fx, int64_t now, size_t limit, kept *k) {
  *k = (kept){0};
  assert_ok(fx, fx->backend->sessions_due(fx->reader, now, limit, keep, k, &fx->err));
  return k->count;
}

static void idle_sessions_are_found(void **state) {
  fixture *fx = *state;
  kept k;
  assert_int_equal(due(fx, INT64_MAX, 10, &k), 0);
  put(fx, "default", "late", 1, 300, 0);
  put(fx, "default", "never", 1, 0, 0);
  put(fx, "other", "early", 1, 100, 0);
  put(fx, "default", "ended", 1, 200, 5);
  assert_int_equal(due(fx, 99, 10, &k), 0);
  assert_int_equal(due(fx, 300, 10, &k), 3);
  assert_string_equal(k.names[0], "other/early");
  assert_string_equal(k.names[1], "default/ended");
  assert_string_equal(k.names[2], "default/late");
  assert_int_equal(due(fx, 300, 1, &k), 1);
  put(fx, "other", "early", 1, 400, 0);
  assert_int_equal(due(fx, 300, 10, &k), 2);
  put(fx, "default", "late", 1, 0, 0);
  assert_int_equal(due(fx, 300, 10, &k), 1);
  assert_ok(fx, fx->backend->session_drop(fx->writer, TM_S("default"), TM_S("ended"), &fx->err));
  assert_int_equal(due(fx, 300, 10, &k), 0);
  assert_int_equal(due(fx, 400, 10, &k), 1);
}

static const struct CMUnitTest cases[] = {
    CASE(a_session_comes_back_whole),
    CASE(put_replaces),
    CASE(put_compares_first),
    CASE(a_comparison_sees_who_opens_it),
    CASE(an_ended_session_opens_again),
    CASE(a_lost_commit_makes_no_session),
    CASE(a_lost_commit_opens_no_session),
    CASE(sessions_in_use_stay),
    CASE(open_sessions_are_limited),
    CASE(each_tenant_has_its_limit),
    CASE(limits_hold_within_a_group),
    CASE(a_taken_key_comes_before_the_limit),
    CASE(sessions_list_and_page),
    CASE(long_lists_are_read_in_pieces),
    CASE(sessions_of_all_tenants),
    CASE(lists_of_sessions_have_edges),
    CASE(odd_ids_sort_by_bytes),
    CASE(idle_sessions_are_found),
};

int main(void) {
  int failed = 0;
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
