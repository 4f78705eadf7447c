/* What every backend must do for tenants: stores of their own that nobody else sees, and the index
 * of who must be looked at when; notes and scripts; many writers; hostile names; what the store
 * says about itself. The same cases over all of backends.def. */
#include "contract.h"

/* ---- stores of their own ---- */

typedef struct own { /* a tenant's store, opened beside the fixture's */
  tm_store *store;
  tm_store_conn *conn;
} own;

static own open_own(fixture *fx, const char *tenant) {
  own o = {0};
  tm_store_options options = fx->options;
  options.tenant = tenant;
  assert_ok(fx, fx->backend->open(&o.store, &options, &fx->err));
  assert_ok(fx, fx->backend->connect(&o.conn, o.store, TM_STORE_WRITER, &fx->err));
  return o;
}

static void close_own(fixture *fx, own *o) {
  fx->backend->disconnect(o->conn);
  fx->backend->close(o->store);
}

static void put_in(fixture *fx, tm_store_conn *conn, const char *body) {
  const tm_session session = {.user_id = tm__slice(body), .created = 1, .look_at = 2};
  tm_row row = row_of(fx, 0, body);
  tm_commit c = commit_of(fx, nth(1).text, 0, &row);
  tm_commit *items[] = {&c};
  c.start_key = 7;
  c.session = &session;
  c.head.wake_at = 5;
  c.head.ended = 6;
  assert_ok(fx, fx->backend->commit(conn, items, 1, &fx->err));
  assert_int_equal(c.status, TM_OK);
  assert_ok(fx, fx->backend->note_put(conn, TM_S("note"), tm__slice(body), &fx->err));
  assert_ok(
      fx, fx->backend->script_put(conn, TM_S("shop"), tm__slice(body), tm__slice(body), &fx->err));
}

typedef struct all { /* everything that one store shows */
  size_t heads, rows, sessions, scripts, keys, notes;
  char body[32];
} all;

static tm_status all_row(void *ud, const tm_row *row) {
  all *a = ud;
  a->rows++;
  assert_true(tm__copy(a->body, sizeof(a->body), row->body));
  return TM_OK;
}

static tm_status all_head(void *ud, const tm_head *head) {
  (void)head;
  ((all *)ud)->heads++;
  return TM_OK;
}

static tm_status all_session(void *ud, const tm_session *s) {
  (void)s;
  ((all *)ud)->sessions++;
  return TM_OK;
}

static tm_status all_script(void *ud, tm_slice system, tm_slice version, int64_t used) {
  (void)used;
  (void)system, (void)version;
  ((all *)ud)->scripts++;
  return TM_OK;
}

static all look(fixture *fx, tm_store_conn *conn) {
  const tm_store_backend *b = fx->backend;
  all a = {0};
  tm_head head;
  tm_start_key key;
  tm_buf note = {0};
  const tm_list_filter list = {.status = -1, .limit = 100};
  const tm_session_filter sessions = {.ended = -1, .limit = 100};
  assert_ok(fx, b->list(conn, &list, all_head, &a, &fx->err));
  assert_ok(fx, b->due(conn, 100, 0, 100, all_head, &a, &fx->err));
  assert_ok(fx, b->ended(conn, 100, 100, all_head, &a, &fx->err));
  assert_ok(fx, b->sessions(conn, &sessions, all_session, &a, &fx->err));
  assert_ok(fx, b->sessions_due(conn, 100, 100, all_session, &a, &fx->err));
  assert_ok(fx, b->scripts(conn, all_script, &a, &fx->err));
  a.keys = b->start_key(conn, TM_S("default"), 7, &key, NULL) == TM_OK;
  a.notes = b->note_get(conn, TM_S("note"), &note, NULL) == TM_OK;
  tm__buf_free(&note);
  if (b->head(conn, tm__slice(nth(1).text), &head, NULL) == TM_OK)
    assert_ok(fx, b->chain(conn, tm__slice(nth(1).text), head.tip, false, all_row, &a, &fx->err));
  return a;
}

static void must_show(fixture *fx, tm_store_conn *conn, const char *body) {
  all a = look(fx, conn);
  bool any = body[0] != '\0';
  assert_int_equal(a.heads, any ? 3 : 0);
  assert_int_equal(a.rows, any);
  assert_int_equal(a.sessions, any ? 2 : 0);
  assert_int_equal(a.scripts, any);
  assert_true(a.keys == any && a.notes == any);
  assert_string_equal(a.body, body);
}

static void stores_of_tenants_are_apart(void **state) {
  fixture *fx = *state;
  own acme = open_own(fx, "acme"), other = open_own(fx, "Acme.-_2");
  put_in(fx, acme.conn, "acme's");
  must_show(fx, acme.conn, "acme's");
  must_show(fx, other.conn, "");
  must_show(fx, fx->writer, "");
  put_in(fx, fx->writer, "everybody's"); /* the same ids in each */
  put_in(fx, other.conn, "the other's");
  must_show(fx, acme.conn, "acme's");
  must_show(fx, other.conn, "the other's");
  must_show(fx, fx->writer, "everybody's");
  bool more = true;
  assert_ok(fx, fx->backend->purge(acme.conn, tm__slice(nth(1).text), 1, true, &fx->err));
  while (more)
    assert_ok(fx, fx->backend->sweep(acme.conn, 10, &more, &fx->err));
  must_show(fx, other.conn, "the other's");
  must_show(fx, fx->writer, "everybody's");
  assert_int_equal(look(fx, acme.conn).rows, 0);
  close_own(fx, &other);
  if (fx->backend->durable) {
    other = open_own(fx, "Acme.-_2");
    must_show(fx, other.conn, "the other's");
    close_own(fx, &other);
  }
  close_own(fx, &acme);
}

static void names_of_tenants_are_checked(void **state) {
  fixture *fx = *state;
  char long_[66];
  memset(long_, 'x', 65);
  long_[65] = '\0';
  const char *const bad[] = {long_,  "..",  ".",        "-",   ".a",  "-a",   "a/b",
                             "../x", "a b", "\xc3\xa9", "a'b", "a%b", "a\"b", "a:b"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    tm_store *s = NULL;
    tm_store_options options = fx->options;
    options.tenant = bad[i];
    assert_int_equal(fx->backend->open(&s, &options, &fx->err), TM_EINVAL);
    assert_string_equal(fx->err.code, "store.tenant");
    assert_null(s);
  }
  const char *const good[] = {"_", "_.", "0-", "a..b", long_ + 1, "select", "default"};
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
    own o = open_own(fx, good[i]);
    put_in(fx, o.conn, good[i][0] == 'x' ? "long" : good[i]);
    must_show(fx, o.conn, good[i][0] == 'x' ? "long" : good[i]);
    must_show(fx, fx->writer, "");
    close_own(fx, &o);
  }
}

/* ---- who must be looked at when ---- */

typedef struct tenants {
  char text[1024]; /* "name=wake_at " in the order of the walk */
  size_t count, stop_at;
} tenants;

static tm_status see_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tenants *t = ud;
  size_t len = strlen(t->text);
  (void)snprintf(t->text + len, sizeof(t->text) - len, "%.*s=%lld ", (int)tenant.len, tenant.ptr,
                 (long long)wake_at);
  return ++t->count == t->stop_at ? TM_ECANCELLED : TM_OK;
}

static tm_status wake(fixture *fx, const char *tenant, int64_t expect, int64_t at) {
  return fx->backend->tenant_wake(fx->writer, tm__slice(tenant), expect, at, &fx->err);
}

static void must_list(fixture *fx, const char *after, size_t limit, const char *text) {
  tenants t = {.count = 0};
  assert_ok(fx,
            fx->backend->tenants(fx->reader, tm__slice(after), limit, see_tenant, &t, &fx->err));
  assert_string_equal(t.text, text);
}

static void must_be_due(fixture *fx, int64_t now, size_t limit, const char *text) {
  tenants t = {.count = 0};
  assert_ok(fx, fx->backend->tenants_due(fx->reader, now, limit, see_tenant, &t, &fx->err));
  assert_string_equal(t.text, text);
}

static void tenants_are_woken_earlier_only(void **state) {
  fixture *fx = *state;
  must_list(fx, "", 10, "");
  assert_ok(fx, wake(fx, "acme", -1, 500));
  must_list(fx, "", 10, "acme=500 ");
  assert_ok(fx, wake(fx, "acme", -1, 600)); /* what stands is earlier */
  must_list(fx, "", 10, "acme=500 ");
  assert_ok(fx, wake(fx, "acme", -1, 500));
  assert_ok(fx, wake(fx, "acme", -1, 400));
  must_list(fx, "", 10, "acme=400 ");
  assert_ok(fx, wake(fx, "new", -1, 0)); /* known, and nothing is due */
  must_list(fx, "", 10, "acme=400 new=0 ");
  assert_ok(fx, wake(fx, "new", -1, 700));
  must_list(fx, "", 10, "acme=400 new=700 ");
}

static void tenants_are_set_by_what_stands(void **state) {
  fixture *fx = *state;
  assert_ok(fx, wake(fx, "acme", -1, 500));
  assert_int_equal(wake(fx, "acme", 499, 900), TM_ECONFLICT);
  assert_string_equal(fx->err.code, "store.conflict");
  assert_int_equal(wake(fx, "acme", 0, 900), TM_ECONFLICT);
  assert_int_equal(wake(fx, "acme", 0, 400), TM_ECONFLICT); /* earlier, but not what stands */
  must_list(fx, "", 10, "acme=500 ");
  assert_ok(fx, wake(fx, "acme", 500, 900)); /* later, too */
  must_list(fx, "", 10, "acme=900 ");
  assert_ok(fx, wake(fx, "acme", 900, 0));
  must_list(fx, "", 10, "acme=0 ");
  must_be_due(fx, INT64_MAX, 10, "");
  assert_ok(fx, wake(fx, "acme", 0, 300));
  must_be_due(fx, 300, 10, "acme=300 ");
  assert_ok(fx, wake(fx, "acme", 300, 300));
  assert_ok(fx, wake(fx, "unknown", 0, 20)); /* of whom nothing stands */
  assert_int_equal(wake(fx, "nobody", 20, 30), TM_ECONFLICT);
  must_list(fx, "", 10, "acme=300 unknown=20 ");
}

static void due_tenants_come_in_order(void **state) {
  fixture *fx = *state;
  assert_ok(fx, wake(fx, "c", -1, 300));
  assert_ok(fx, wake(fx, "a", -1, 100));
  assert_ok(fx, wake(fx, "B", -1, 200));
  assert_ok(fx, wake(fx, "z", -1, 0));
  must_be_due(fx, 99, 10, "");
  must_be_due(fx, 300, 10, "a=100 B=200 c=300 ");
  must_be_due(fx, 250, 10, "a=100 B=200 ");
  must_be_due(fx, 300, 1, "a=100 ");
  must_be_due(fx, 300, 0, "");
  tenants t = {.stop_at = 1};
  assert_int_equal(fx->backend->tenants_due(fx->reader, 300, 9, see_tenant, &t, NULL),
                   TM_ECANCELLED);
  must_list(fx, "", 10, "B=200 a=100 c=300 z=0 "); /* by bytes */
  must_list(fx, "a", 10, "c=300 z=0 ");
  must_list(fx, "B", 2, "a=100 c=300 ");
  must_list(fx, "b", 2, "c=300 z=0 ");
  must_list(fx, "z", 2, "");
  if (!fx->backend->durable) return;
  fixture_close(fx);
  fixture_open(fx);
  must_be_due(fx, 300, 10, "a=100 B=200 c=300 ");
}

/* Where it can be told whether somebody has it open. */
static void a_store_of_a_tenant_is_dropped(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  tm_store_options options = fx->options;
  options.tenant = "acme";
  if (b->tenant_drop == NULL) return;
  own acme = open_own(fx, "acme"), other = open_own(fx, "other");
  put_in(fx, acme.conn, "acme's");
  put_in(fx, other.conn, "the other's");
  close_own(fx, &other);
  assert_ok(fx, wake(fx, "acme", -1, 100));
  assert_ok(fx, wake(fx, "other", -1, 200));
  assert_int_equal(b->tenant_drop(fx->writer, &options, &fx->err), TM_EUNAVAILABLE);
  assert_string_equal(fx->err.code, "store.in_use");
  must_show(fx, acme.conn, "acme's");
  must_list(fx, "", 10, "acme=100 other=200 ");
  close_own(fx, &acme);
  assert_ok(fx, b->tenant_drop(fx->writer, &options, &fx->err));
  must_list(fx, "", 10, "other=200 ");
  must_be_due(fx, 300, 10, "other=200 ");
  options.opening = TM_STORE_EXISTING;
  assert_int_equal(b->open(&acme.store, &options, &fx->err), TM_ENOTFOUND);
  assert_ok(fx, b->tenant_drop(fx->writer, &options, &fx->err)); /* there is none */
  fixture_close(fx);
  fixture_open(fx);
  must_list(fx, "", 10, "other=200 ");
  acme = open_own(fx, "acme");
  other = open_own(fx, "other");
  must_show(fx, acme.conn, "");
  must_show(fx, other.conn, "the other's");
  close_own(fx, &acme);
  close_own(fx, &other);
}

/* Sessions of a tenant do not make it one with a store of its own. */
static void only_those_with_stores_are_listed(void **state) {
  fixture *fx = *state;
  put_in(fx, fx->writer, "x");
  must_list(fx, "", 10, "");
}

/* ---- notes and scripts ---- */

static void note_must_be(fixture *fx, const char *name, const char *bytes, size_t len) {
  tm_buf out = {0};
  tm__buf_text(&out, "> ");
  assert_ok(fx, fx->backend->note_get(fx->reader, tm__slice(name), &out, &fx->err));
  assert_int_equal(out.len, len + 2);
  assert_memory_equal(out.ptr + 2, bytes, len);
  tm__buf_free(&out);
}

static void notes_are_kept(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  const tm_slice bytes = {"\0\xff'\"\x80", 5};
  tm_buf out = {0};
  assert_int_equal(b->note_get(fx->reader, TM_S("a.b_1"), &out, &fx->err), TM_ENOTFOUND);
  assert_ok(fx, b->note_put(fx->writer, TM_S("a.b_1"), bytes, &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("a.b_2"), TM_S(""), &fx->err));
  note_must_be(fx, "a.b_1", bytes.ptr, 5);
  note_must_be(fx, "a.b_2", "", 0);
  assert_ok(fx, b->note_put(fx->writer, TM_S("a.b_1"), TM_S("another"), &fx->err));
  note_must_be(fx, "a.b_1", "another", 7);
  if (b->durable) {
    fixture_close(fx);
    fixture_open(fx);
    note_must_be(fx, "a.b_1", "another", 7);
  }
  assert_ok(fx, b->note_put(fx->writer, TM_S("a.b_1"), (tm_slice){NULL, 0}, &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("never"), (tm_slice){NULL, 0}, &fx->err));
  assert_int_equal(b->note_get(fx->reader, TM_S("a.b_1"), &out, &fx->err), TM_ENOTFOUND);
  note_must_be(fx, "a.b_2", "", 0);
  assert_int_equal(out.len, 0);
}

/* Whoever has read what stands writes; everybody else is told. */
static void notes_are_swapped(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  const tm_slice none = {NULL, 0}, bytes = {"\0\xff'\"\x80", 5};
  const tm_slice name = TM_S("a.b_1");
  assert_int_equal(b->note_swap(fx->writer, name, TM_S(""), TM_S("x"), &fx->err), TM_ECONFLICT);
  assert_ok(fx, b->note_swap(fx->writer, name, none, TM_S(""), &fx->err));
  assert_int_equal(b->note_swap(fx->writer, name, none, TM_S("x"), &fx->err), TM_ECONFLICT);
  assert_string_equal(fx->err.code, "store.conflict");
  assert_ok(fx, b->note_swap(fx->writer, name, TM_S(""), bytes, &fx->err));
  assert_int_equal(b->note_swap(fx->writer, name, TM_S(""), TM_S("x"), &fx->err), TM_ECONFLICT);
  note_must_be(fx, "a.b_1", bytes.ptr, 5);
  assert_ok(fx, b->note_swap(fx->writer, name, bytes, TM_S("more"), &fx->err));
  assert_ok(fx, b->note_put(fx->writer, name, TM_S("put"), &fx->err));
  assert_int_equal(b->note_swap(fx->writer, name, TM_S("more"), bytes, &fx->err), TM_ECONFLICT);
  assert_ok(fx, b->note_swap(fx->writer, name, TM_S("put"), TM_S("last"), &fx->err));
  if (b->durable) {
    fixture_close(fx);
    fixture_open(fx);
  }
  note_must_be(fx, "a.b_1", "last", 4);
  assert_ok(fx, b->note_put(fx->writer, name, none, &fx->err));
  assert_int_equal(b->note_swap(fx->writer, name, TM_S("last"), bytes, &fx->err), TM_ECONFLICT);
}

typedef struct scripts {
  int found[3], count;
} scripts;

static tm_status see_script(void *ud, tm_slice system, tm_slice version, int64_t used) {
  (void)used;
  scripts *s = ud;
  s->count++;
  s->found[0] += tm__slice_is(system, "shop") && tm__slice_is(version, "v1");
  s->found[1] += tm__slice_is(system, "shop") && tm__slice_is(version, "v2");
  s->found[2] += tm__slice_is(system, "sh") && tm__slice_is(version, "opv1");
  return TM_OK;
}

static void scripts_are_listed(void **state) {
  fixture *fx = *state;
  const tm_store_backend *b = fx->backend;
  scripts s = {.count = 0};
  assert_ok(fx, b->scripts(fx->reader, see_script, &s, &fx->err));
  assert_int_equal(s.count, 0);
  assert_ok(fx, b->script_put(fx->writer, TM_S("shop"), TM_S("v1"), TM_S("x"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("shop"), TM_S("v2"), TM_S("y"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("sh"), TM_S("opv1"), TM_S("z"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("shop"), TM_S("v1"), TM_S("again"), &fx->err));
  assert_ok(fx, b->scripts(fx->reader, see_script, &s, &fx->err));
  assert_true(s.count == 3 && s.found[0] == 1 && s.found[1] == 1 && s.found[2] == 1);
}

/* ---- what the store says about itself ---- */

static void count_findings(void *ud, tm_finding level, const char *text) {
  assert_true(text[0] != '\0');
  ((int *)ud)[level]++;
}

static void a_sound_store_has_no_errors(void **state) {
  fixture *fx = *state;
  int found[3] = {0};
  put_in(fx, fx->writer, "x");
  (void)turn(fx, nth(2).text, 0, 0, "{}");
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(2).text), 1, true, &fx->err));
  for (int deep = 0; deep < 2; deep++)
    assert_ok(fx, fx->backend->inspect(fx->reader, deep != 0, count_findings, found, &fx->err));
  assert_int_equal(found[TM_FINDING_ERROR], 0);
}

static const struct CMUnitTest cases[] = {
    CASE(stores_of_tenants_are_apart),
    CASE(names_of_tenants_are_checked),
    CASE(tenants_are_woken_earlier_only),
    CASE(tenants_are_set_by_what_stands),
    CASE(due_tenants_come_in_order),
    CASE(a_store_of_a_tenant_is_dropped),
    CASE(only_those_with_stores_are_listed),
    CASE(notes_are_kept),
    CASE(notes_are_swapped),
    CASE(scripts_are_listed),
    CASE(a_sound_store_has_no_errors),
};

int main(void) {
  int failed = 0;
#define BACKEND(name) failed += run_for(&tm__store_##name, cases, sizeof(cases) / sizeof(cases[0]));
#include "persistence/backends.def"
#undef BACKEND
  return failed;
}
