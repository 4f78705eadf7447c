/* What only Redis has: its login, its databases, scripts that it forgets, slots, hints that lie,
 * and each way in which a server says no. */
#include "damaged_event.h"
#include "damaged_head.h"
#include "damaged_names.h"
#include "damaged_session.h"
#include "redis_server.h"

typedef struct setting {
  fixture fx;
  redis_server server;
} setting;

static int make_with(void **state, const char *const *options, bool opened) {
  setting *s = calloc(1, sizeof(*s));
  if (s == NULL) return -1;
  for (size_t i = 0; options != NULL && options[i] != NULL; i++)
    s->server.options[i] = options[i];
  server_make(&s->server, &s->fx);
  if (opened) fixture_open(&s->fx);
  *state = s;
  return 0;
}

static int make(void **state) {
  return make_with(state, NULL, true);
}

static int unmake(void **state) {
  setting *s = *state;
  server_remove(&s->server, &s->fx);
  free(s);
  return 0;
}

static tm_status open_store(setting *s) {
  fixture *fx = &s->fx;
  tm_store *store = NULL; /* beside the one that may be open */
  tm_status status = fx->backend->open(&store, &fx->options, &fx->err);
  fx->backend->close(store);
  return status;
}

static void assert_refused(setting *s, tm_status status, const char *code) {
  assert_int_equal(open_store(s), status);
  assert_string_equal(s->fx.err.code, code);
}

/* ---- the address ---- */

static void addresses(void **state) {
  setting *s = *state;
  static const char *const bad[] = {"",        "localhost",      "h:0/1",  "h:65536/1",
                                    "h:1/",    "h:1/x",          "h:1/-1", ":6379/0",
                                    "h:12a/1", "h:1/99999999999"};
  fixture_close(&s->fx);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    s->fx.options.location = bad[i];
    assert_refused(s, TM_EINVAL, "store.location");
  }
  char at[64];
  s->fx.options.location = at;
  (void)snprintf(at, sizeof(at), "127.0.0.1:%d", s->server.port); /* database 0 */
  assert_ok(&s->fx, open_store(s));
  (void)snprintf(at, sizeof(at), "127.0.0.1:%d/16", s->server.port);
  assert_refused(s, TM_EINVAL, "store.location"); /* it has 16 */
  assert_non_null(strstr(s->fx.err.message, "choose a smaller"));
}

static void databases_are_apart(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  tm_head head;
  char at[64];
  turn(fx, nth(1).text, 0, 0, "{}");
  fixture_close(fx);
  (void)snprintf(at, sizeof(at), "127.0.0.1:%d/3", s->server.port);
  fx->options.location = at;
  fixture_open(fx);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, NULL),
                   TM_ENOTFOUND);
  fixture_close(fx);
}

static void tenants_have_keys_of_their_own(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  tm_head head;
  turn(fx, nth(1).text, 0, 0, "{}");
  fixture_close(fx);
  fx->options.tenant = "acme";
  fixture_open(fx);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, NULL),
                   TM_ENOTFOUND);
  turn(fx, nth(2).text, 0, 0, "{}");
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:t:acme:h:{%s}", nth(2).text), 1);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:h:{%s}", nth(2).text), 0);
  fixture_close(fx);
  fx->options.tenant = "ac:me";
  assert_refused(s, TM_EINVAL, "store.tenant");
}

/* ---- login ---- */

static int make_locked(void **state) {
  static const char *const options[] = {"--requirepass", "open sesame", NULL};
  return make_with(state, options, false);
}

static void passwords(void **state) {
  setting *s = *state;
  assert_refused(s, TM_EUNAVAILABLE, "store.login");
  s->fx.options.password = "close sesame";
  assert_refused(s, TM_EUNAVAILABLE, "store.login");
  assert_null(strstr(s->fx.err.message, "sesame"));
  s->fx.options.password = "open sesame";
  fixture_open(&s->fx);
  turn(&s->fx, nth(1).text, 0, 0, "{}");
}

static void a_password_that_nobody_asked_for(void **state) {
  setting *s = *state;
  fixture_close(&s->fx);
  s->fx.options.password = "sesame";
  assert_refused(s, TM_EUNAVAILABLE, "store.login");
  assert_non_null(strstr(s->fx.err.message, "has no password"));
}

/* ---- what a server may be asked ---- */

/* One of everything, on conversation `from`. */
static void do_everything(fixture *fx, int from) {
  const tm_store_backend *b = fx->backend;
  tm_session session = {.user_id = TM_S("u"), .created = fx->now, .look_at = 5};
  tm_row row = row_of(fx, 0, "{}");
  tm_commit c = commit_of(fx, nth(from).text, 0, &row);
  tm_start_key key;
  bool more = true;
  c.start_key = (uint64_t)from + 1;
  c.session = &session;
  c.head.wake_at = 9;
  c.sessions_max = 1000;
  assert_ok(fx, commit_one(fx, &c));
  assert_int_equal(turn(fx, nth(from).text, 1, 1, "{\"n\":2}"), 2);
  assert_int_equal(commit_one(fx, &c), TM_ECONFLICT);
  assert_ok(fx, b->start_key(fx->reader, TM_S("default"), (uint64_t)from + 1, &key, &fx->err));
  assert_int_equal(b->purge(fx->writer, tm__slice(nth(from).text), 1, true, &fx->err),
                   TM_ECONFLICT);
  row.id = 2;
  set_text(row.conversation, sizeof(row.conversation), nth(from).text);
  assert_ok(fx, b->rewrite(fx->writer, &row, 1, &fx->err));
  assert_ok(fx, b->purge(fx->writer, tm__slice(nth(from).text), 2, true, &fx->err));
  assert_ok(fx, b->session_drop(fx->writer, TM_S("default"), TM_S("s1"), &fx->err));
  session.tenant = TM_S("default");
  session.id = TM_S("s9");
  assert_ok(fx, b->session_put(fx->writer, NULL, &session, &fx->err));
  assert_ok(fx, b->tenant_wake(fx->writer, TM_S("t"), -1, 7, &fx->err));
  assert_ok(fx, b->note_put(fx->writer, TM_S("n"), TM_S("x"), &fx->err));
  assert_ok(fx, b->script_put(fx->writer, TM_S("a"), TM_S("b"), TM_S("c"), &fx->err));
  assert_ok(fx, b->probe(fx->writer, &fx->err));
  while (more)
    assert_ok(fx, b->sweep(fx->writer, 10, &more, &fx->err));
}

static tm_status ignore_head(void *ud, const tm_head *head) {
  (void)ud, (void)head;
  return TM_OK;
}

static tm_status ignore_row(void *ud, const tm_row *row) {
  (void)ud, (void)row;
  return TM_OK;
}

static tm_status ignore_session(void *ud, const tm_session *session) {
  (void)ud, (void)session;
  return TM_OK;
}

static tm_status ignore_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  (void)ud, (void)tenant, (void)wake_at;
  return TM_OK;
}

/* Every call finds its script forgotten. */
static void forgotten_scripts_are_loaded_again(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  const tm_store_backend *b = fx->backend;
  tm_session session = {.tenant = TM_S("default"), .id = TM_S("s1"), .created = 1};
  tm_row row = row_of(fx, 0, "{}");
  tm_commit first = commit_of(fx, nth(1).text, 0, &row),
            second = commit_of(fx, nth(2).text, 0, &row);
  first.start_key = 1;
  first.session = &session;
  tm_commit *items[] = {&first, &second};
#define FORGET(call)                                                                               \
  (void)server_ask(&s->server, "SCRIPT FLUSH");                                                    \
  assert_ok(fx, call)
  FORGET(b->commit(fx->writer, items, 2, &fx->err));
  assert_int_equal(first.status + second.status, TM_OK);
  (void)server_ask(&s->server, "SCRIPT FLUSH");
  turn(fx, nth(1).text, 1, 1, "{}");
  FORGET(b->chain(fx->reader, tm__slice(nth(1).text), 2, false, ignore_row, NULL, &fx->err));
  FORGET(b->due(fx->writer, 100, 0, 10, ignore_head, NULL, &fx->err));
  FORGET(b->sessions_due(fx->reader, 100, 10, ignore_session, NULL, &fx->err));
  FORGET(b->session_put(fx->writer, NULL, &session, &fx->err));
  FORGET(b->tenant_wake(fx->writer, TM_S("t"), -1, 7, &fx->err));
  FORGET(b->note_swap(fx->writer, TM_S("n"), (tm_slice){0}, TM_S("x"), &fx->err));
  FORGET(b->tenants_due(fx->reader, 100, 10, ignore_tenant, NULL, &fx->err));
  row.id = 2;
  row.body = TM_S("[]");
  set_text(row.conversation, sizeof(row.conversation), nth(1).text);
  FORGET(b->rewrite(fx->writer, &row, 1, &fx->err));
  FORGET(b->purge(fx->writer, tm__slice(nth(1).text), 2, true, &fx->err));
  FORGET(b->session_drop(fx->writer, TM_S("default"), TM_S("none"), &fx->err));
}

/* ---- slots ---- */

static int make_cluster(void **state) {
  static const char *const options[] = {"--cluster-enabled", "yes", NULL};
  return make_with(state, options, false);
}

/* A node of a cluster refuses what touches keys of two slots. */
static void nothing_touches_two_slots(void **state) {
  setting *s = *state;
  (void)server_ask(&s->server, "CLUSTER ADDSLOTSRANGE 0 16383");
  while (open_store(s) != TM_OK) { /* it needs a moment to believe it */
    assert_string_equal(s->fx.err.code, "store.cluster");
    pause_ms(20);
  }
  fixture_open(&s->fx);
  for (int i = 0; i < 20; i++)
    do_everything(&s->fx, i);
}

/* The slot of a key: CRC16 of its hash tag, or of all of it. */
static unsigned slot_of(const char *key) {
  const char *from = strchr(key, '{'), *to = from != NULL ? strchr(from, '}') : NULL;
  unsigned crc = 0;
  if (to == NULL || to == from + 1) {
    from = key - 1;
    to = key + strlen(key);
  }
  for (const char *p = from + 1; p < to; p++) {
    crc ^= (unsigned)(unsigned char)*p << 8;
    for (int i = 0; i < 8; i++)
      crc = (crc << 1 ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return crc % 16384;
}

/* Ids that would end or empty a hash tag. */
static void hostile_ids_stay_in_one_slot(void **state) {
  setting *s = *state;
  static const char *const ids[] = {"}", "{", "{}", "}x{y}", "a}b", "%", ":", "a\r\nb", "\xff\xfe"};
  for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
    assert_int_equal(turn(&s->fx, ids[i], 0, 0, "{}"), 1);
    assert_string_equal(head_of(&s->fx, ids[i]).id, ids[i]);
  }
  redisContext *c = server_connection(&s->server);
  redisReply *heads = redisCommand(c, "KEYS tidemill:h:*");
  assert_int_equal(heads->elements, sizeof(ids) / sizeof(ids[0]));
  for (size_t i = 0; i < heads->elements; i++) {
    char rows[256];
    (void)snprintf(rows, sizeof(rows), "%s", heads->element[i]->str);
    rows[strlen("tidemill:")] = 'j';
    assert_int_equal(server_ask(&s->server, "EXISTS %s", rows), 1);
    assert_int_equal(slot_of(rows), slot_of(heads->element[i]->str));
  }
  freeReplyObject(heads);
  redisFree(c);
}

static void a_node_without_slots(void **state) {
  setting *s = *state;
  assert_refused(s, TM_EUNAVAILABLE, "store.cluster");
}

/* ---- hints ---- */

static tm_status count_head(void *ud, const tm_head *head) {
  (void)head;
  ++*(size_t *)ud;
  return TM_OK;
}

static size_t listed(fixture *fx, int status) {
  size_t count = 0;
  const tm_list_filter f = {.tenant = TM_S("default"), .status = status, .limit = 100};
  assert_ok(fx, fx->backend->list(fx->reader, &f, count_head, &count, &fx->err));
  return count;
}

static size_t due(fixture *fx, int64_t now) {
  size_t count = 0;
  assert_ok(fx, fx->backend->due(fx->writer, now, 0, 100, count_head, &count, &fx->err));
  return count;
}

static size_t ended(fixture *fx, int64_t now) {
  size_t count = 0;
  assert_ok(fx, fx->backend->ended(fx->writer, now, 100, count_head, &count, &fx->err));
  return count;
}

static void sweep_all(fixture *fx) {
  bool more = true;
  for (int i = 0; more; i++) {
    assert_true(i < 1000);
    assert_ok(fx, fx->backend->sweep(fx->writer, 7, &more, &fx->err));
  }
}

static void make_ended(fixture *fx, int n) {
  tm_commit c = commit_of(fx, nth(n).text, 0, NULL);
  c.head.status = TM_COMPLETED;
  c.head.ended = 50;
  c.head.wake_at = 60;
  assert_ok(fx, commit_one(fx, &c));
}

static void lost_hints_are_written_again(void **state) {
  setting *s = *state;
  static const char *const hints[] = {"l:all",
                                      "l:tenant:default",
                                      "l:session:default:s1",
                                      "l:system:default:shop",
                                      "l:flow:default:returns",
                                      "l:status:default:completed",
                                      "due",
                                      "ended"};
  for (int i = 0; i < 30; i++)
    make_ended(&s->fx, i);
  for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
    assert_int_equal(server_ask(&s->server, "DEL tidemill:%s", hints[i]), 1);
  assert_int_equal(listed(&s->fx, -1) + due(&s->fx, 100) + ended(&s->fx, 100), 0);
  sweep_all(&s->fx);
  for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++)
    assert_int_equal(server_ask(&s->server, "ZCARD tidemill:%s", hints[i]), 30);
  assert_int_equal(listed(&s->fx, TM_COMPLETED), 30);
  assert_int_equal(due(&s->fx, 100), 30);
  assert_int_equal(ended(&s->fx, 100), 30);
}

/* Nobody is shown them, and those that nobody meets are swept away. */
static void hints_that_lie_go(void **state) {
  setting *s = *state;
  static const char *const lists[] = {"l:all", "l:tenant:default", "l:status:default:completed",
                                      "l:status:default:failed"};
  turn(&s->fx, nth(50).text, 0, 0, "{}");
  for (int i = 0; i < 30; i++) {
    for (size_t k = 0; k < sizeof(lists) / sizeof(lists[0]); k++)
      (void)server_ask(&s->server, "ZADD tidemill:%s 0 %s", lists[k], nth(i).text);
    (void)server_ask(&s->server, "ZADD tidemill:due %d %s", 10 + i, nth(i).text);
    (void)server_ask(&s->server, "ZADD tidemill:ended %d %s", 10 + i, nth(i).text);
  }
  (void)server_ask(&s->server, "ZADD tidemill:l:status:default:failed 0 %s", nth(50).text);
  assert_int_equal(listed(&s->fx, -1), 1);
  assert_int_equal(listed(&s->fx, TM_FAILED), 0);
  assert_int_equal(listed(&s->fx, TM_COMPLETED), 0);
  assert_int_equal(due(&s->fx, 100) + ended(&s->fx, 100), 0);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:due"), 0); /* mended where it was met */
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:ended"), 0);
  sweep_all(&s->fx);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:l:all"), 1);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:l:tenant:default"), 1);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:status:default:completed"), 0);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:status:default:failed"), 0);
}

/* A round ends, and the next begins an hour later. */
static void sweeps_rest(void **state) {
  setting *s = *state;
  bool more = true;
  sweep_all(&s->fx);
  (void)server_ask(&s->server, "ZADD tidemill:l:all 0 %s", nth(1).text);
  assert_ok(&s->fx, s->fx.backend->sweep(s->fx.writer, 10, &more, &s->fx.err));
  assert_false(more);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:l:all"), 1);
  s->fx.now += 60 * 60 * 1000;
  sweep_all(&s->fx);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:all"), 0);
}

/* How many SCANs the server has answered. */
static long long scans(setting *s) {
  long long calls = 0;
  redisContext *c = server_connection(&s->server);
  redisReply *r = redisCommand(c, "INFO commandstats");
  const char *at = strstr(r->str, "cmdstat_scan:calls=");
  if (at != NULL) calls = strtoll(strchr(at, '=') + 1, NULL, 10);
  freeReplyObject(r);
  redisFree(c);
  return calls;
}

static void open_tenant(setting *s, int n, char name[16]) {
  (void)snprintf(name, 16, "acme-%d", n);
  if (n == 0) name[0] = '\0';
  s->fx.options.tenant = name;
  fixture_open(&s->fx);
}

/* Each with a store of its own, or all in one where they have none. */
enum { TENANTS = 12 };

static void prefix_of(int n, char out[40]) {
  (void)snprintf(out, 40, n == 0 ? "tidemill:" : "tidemill:t:acme-%d:", n);
}

/* A conversation that no list has, and one in a list that is nowhere. */
static void make_tenants(setting *s) {
  char name[16], prefix[40];
  fixture_close(&s->fx);
  for (int i = 0; i < TENANTS; i++) {
    open_tenant(s, i, name);
    make_ended(&s->fx, i);
    fixture_close(&s->fx);
    prefix_of(i, prefix);
    assert_int_equal(server_ask(&s->server, "DEL %sl:all", prefix), 1);
    assert_int_equal(server_ask(&s->server, "DEL %sdue", prefix), 1);
    (void)server_ask(&s->server, "ZADD %sl:flow:default:returns 0 %s", prefix, nth(99).text);
  }
}

static void assert_mended(setting *s, int n) {
  char prefix[40];
  prefix_of(n, prefix);
  assert_int_equal(server_ask(&s->server, "ZSCORE %sl:all %s", prefix, nth(n).text), 1);
  assert_int_equal(server_ask(&s->server, "ZCARD %sl:all", prefix), 1);
  assert_int_equal(server_ask(&s->server, "ZCARD %sdue", prefix), 1);
  assert_int_equal(server_ask(&s->server, "ZCARD %sl:flow:default:returns", prefix), 1);
}

/* What a purge does: each store sweeps until nothing is left. Their number does not matter. */
static void one_round_is_for_all_tenants(void **state) {
  setting *s = *state;
  char name[16];
  make_tenants(s);
  const long long keys = server_ask(&s->server, "DBSIZE"), before = scans(s);
  for (int i = 0; i < TENANTS; i++) {
    open_tenant(s, i, name);
    sweep_all(&s->fx);
    fixture_close(&s->fx);
  }
  assert_in_range(scans(s) - before, 1, 2 * keys / 7);
  for (int i = 0; i < TENANTS; i++)
    assert_mended(s, i);
}

/* As where one tenant's store is copied into, and nobody purges the others. */
static void any_store_does_the_round(void **state) {
  setting *s = *state;
  char name[16];
  make_tenants(s);
  open_tenant(s, 5, name);
  sweep_all(&s->fx);
  for (int i = 0; i < TENANTS; i++)
    assert_mended(s, i);
  s->fx.now += 60 * 60 * 1000 - 1; /* the next one is an hour later, for all of them */
  fixture_close(&s->fx);
  open_tenant(s, 0, name);
  const long long before = scans(s);
  sweep_all(&s->fx);
  assert_int_equal(scans(s), before);
  s->fx.now++;
  sweep_all(&s->fx);
  assert_true(scans(s) > before);
}

/* The round goes on behind what it cannot read, and leaves it as it is. */
static void damage_ends_no_round(void **state) {
  setting *s = *state;
  char name[16], prefix[40];
  make_tenants(s);
  for (int i = 1; i < 4; i++) {
    prefix_of(i, prefix);
    (void)server_ask(&s->server, "HSET %sh:{%s} status nonsense", prefix, nth(i).text);
    (void)server_ask(&s->server, "ZADD %sl:all 0 %s", prefix, nth(i).text);
  }
  (void)server_ask(&s->server, "SET tidemill:t:acme-4:h:{%s} x", nth(50).text);
  (void)server_ask(&s->server, "SET tidemill:t:acme-4:l:tenant:other x");
  (void)server_ask(&s->server, "SET tidemill:t:acme-4:e:{%s} x", nth(4).text);
  (void)server_ask(&s->server, "SET tidemill:t:h: x");
  (void)server_ask(&s->server, "SET tidemill:t:acme-5:h:{ x");
  open_tenant(s, 0, name);
  sweep_all(&s->fx);
  for (int i = 0; i < TENANTS; i++)
    if (i < 1 || i > 3) assert_mended(s, i);
  for (int i = 1; i < 4; i++) {
    prefix_of(i, prefix);
    assert_int_equal(server_ask(&s->server, "ZCARD %sl:all", prefix), 1);
  }
  assert_int_equal(server_ask(&s->server, "HLEN tidemill:sweep:lists"), 0);
}

/* The lists that a commit leaves know it no longer, without a sweep. */
static void left_lists_are_settled(void **state) {
  setting *s = *state;
  turn(&s->fx, nth(1).text, 0, 0, "{}");
  tm_commit c = commit_of(&s->fx, nth(1).text, 1, NULL);
  c.head.status = TM_COMPLETED;
  set_text(c.head.flow, sizeof(c.head.flow), "other");
  assert_ok(&s->fx, commit_one(&s->fx, &c));
  c = commit_of(&s->fx, nth(1).text, 1, NULL); /* a conflict leaves no hint either */
  c.head.status = TM_FAILED;
  assert_int_equal(commit_one(&s->fx, &c), TM_ECONFLICT);
  c = commit_of(&s->fx, nth(1).text, 0, NULL);
  set_text(c.head.session, sizeof(c.head.session), "elsewhere");
  assert_int_equal(commit_one(&s->fx, &c), TM_ECONFLICT);
  assert_int_equal(due(&s->fx, 1), 0); /* each tick settles */
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:status:default:waiting_input"), 0);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:status:default:failed"), 0);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:flow:default:returns"), 0);
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:l:session:default:elsewhere"), 0);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:l:status:default:completed"), 1);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:l:flow:default:other"), 1);
  assert_int_equal(server_ask(&s->server, "ZCARD tidemill:l:all"), 1);
}

/* ---- start keys ---- */

/* What a host leaves that died between its reservation and its commit. */
static void reserve(setting *s, uint64_t key, const char *conversation, int64_t created) {
  (void)server_ask(&s->server,
                   "HSET tidemill:k:default:%016llx conversation %s body 000000000000000a token "
                   "0123456789abcdef created %lld",
                   (unsigned long long)key, conversation, (long long)created);
}

static void reservations_of_the_dead_are_free(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  tm_start_key found;
  tm_commit c = commit_of(fx, nth(2).text, 0, NULL);
  c.start_key = 7;
  reserve(s, 7, nth(1).text, fx->now - 1000);
  assert_ok(fx, fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, &fx->err));
  assert_true(found.row == 0 && found.body == 10);
  assert_int_equal(commit_one(fx, &c), TM_ECONFLICT); /* it may be alive */
  fx->now += 20000;
  assert_int_equal(fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, NULL),
                   TM_ENOTFOUND);
  assert_ok(fx, commit_one(fx, &c));
  assert_ok(fx, fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, &fx->err));
  assert_string_equal(found.conversation, nth(2).text);
  tm_commit late = commit_of(fx, nth(1).text, 0, NULL); /* it was alive after all */
  assert_int_equal(commit_one(fx, &late), TM_ECONFLICT);
  assert_ok(fx, fx->backend->purge(fx->writer, tm__slice(nth(2).text), 1, true, &fx->err));
  assert_int_equal(fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, NULL),
                   TM_ENOTFOUND);
}

/* Reserved, then the start found that its conversation exists, then its host died. */
static void a_reservation_without_the_key_in_the_head_is_free(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  tm_start_key found;
  turn(fx, nth(1).text, 0, 0, "{}");
  reserve(s, 7, nth(1).text, fx->now);
  assert_int_equal(fx->backend->start_key(fx->reader, TM_S("default"), 7, &found, NULL),
                   TM_ENOTFOUND);
  tm_commit c = commit_of(fx, nth(2).text, 0, NULL);
  c.start_key = 7;
  assert_ok(fx, commit_one(fx, &c));
}

/* ---- no ---- */

static void refused_commit(setting *s, const char *code) {
  tm_row row = row_of(&s->fx, 0, "{}");
  tm_commit a = commit_of(&s->fx, nth(800).text, 0, &row),
            b = commit_of(&s->fx, nth(801).text, 0, &row);
  tm_commit *items[] = {&a, &b};
  assert_int_equal(s->fx.backend->commit(s->fx.writer, items, 2, &s->fx.err), TM_EUNAVAILABLE);
  assert_string_equal(s->fx.err.code, code);
  assert_int_equal(a.status, TM_EUNAVAILABLE);
  assert_int_equal(b.status, TM_EUNAVAILABLE);
}

static void it_works_again(setting *s, int n) {
  turn(&s->fx, nth(n).text, 0, 0, "{}");
  assert_int_equal(server_ask(&s->server, "EXISTS tidemill:h:{%s}", nth(800).text), 0);
}

static void a_full_server(void **state) {
  setting *s = *state;
  (void)server_ask(&s->server, "CONFIG SET maxmemory 1");
  refused_commit(s, "store.full");
  assert_int_equal(s->fx.backend->probe(s->fx.writer, &s->fx.err), TM_EUNAVAILABLE);
  (void)server_ask(&s->server, "CONFIG SET maxmemory 0");
  it_works_again(s, 1);
}

static void a_replica(void **state) {
  setting *s = *state;
  (void)server_ask(&s->server, "REPLICAOF 127.0.0.1 1");
  refused_commit(s, "store.read_only");
  (void)server_ask(&s->server, "REPLICAOF NO ONE");
  it_works_again(s, 1);
}

static void *spin(void *ud) {
  const setting *s = ud;
  redisContext *c = server_connection(&s->server);
  if (c != NULL) freeReplyObject(redisCommand(c, "EVAL %s 0", "while true do end"));
  redisFree(c);
  return NULL;
}

static void a_busy_server(void **state) {
  setting *s = *state;
  pthread_t thread;
  (void)server_ask(&s->server, "CONFIG SET busy-reply-threshold 1");
  assert_int_equal(pthread_create(&thread, NULL, spin, s), 0);
  for (;;) { /* until the script runs: then a ping is refused */
    redisContext *c = server_connection(&s->server);
    redisReply *r = redisCommand(c, "PING");
    bool busy = r->type == REDIS_REPLY_ERROR;
    freeReplyObject(r);
    redisFree(c);
    if (busy) break;
    pause_ms(2);
  }
  refused_commit(s, "store.busy");
  (void)server_ask(&s->server, "SCRIPT KILL");
  assert_int_equal(pthread_join(thread, NULL), 0);
  it_works_again(s, 1);
}

static void a_server_without_room_for_clients(void **state) {
  setting *s = *state;
  (void)server_ask(&s->server, "CONFIG SET maxclients 4");
  redisContext *more[4];
  for (size_t i = 0; i < 4; i++)
    more[i] = server_connection(&s->server);
  assert_refused(s, TM_EUNAVAILABLE, "store.connections");
  for (size_t i = 0; i < 4; i++)
    redisFree(more[i]);
}

static void a_server_that_lets_one_do_little(void **state) {
  setting *s = *state;
  (void)server_ask(&s->server, "ACL SETUSER default -hset -evalsha");
  refused_commit(s, "store.login");
  (void)server_ask(&s->server, "ACL SETUSER default +@all");
  it_works_again(s, 1);
}

static void keys_of_others(void **state) {
  setting *s = *state;
  tm_head head;
  (void)server_ask(&s->server, "SET tidemill:h:{%s} x", nth(3).text);
  assert_int_equal(s->fx.backend->head(s->fx.reader, tm__slice(nth(3).text), &head, &s->fx.err),
                   TM_ECORRUPT);
  assert_string_equal(s->fx.err.code, "store.foreign");
  tm_commit bad = commit_of(&s->fx, nth(3).text, 0, NULL),
            good = commit_of(&s->fx, nth(4).text, 0, NULL);
  tm_commit *items[] = {&bad, &good};
  assert_ok(&s->fx, s->fx.backend->commit(s->fx.writer, items, 2, &s->fx.err));
  assert_int_equal(bad.status, TM_ECORRUPT); /* it stops nobody else */
  assert_string_equal(s->fx.err.code, "store.foreign");
  assert_int_equal(good.status, TM_OK);
}

/* A start key, and a list: who wants that key is refused, who is in the list is only not in it. */
static void keys_of_others_at_a_start(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  const tm_session session = {.created = fx->now};
  (void)server_ask(&s->server, "SET tidemill:k:default:0000000000000001 x");
  (void)server_ask(&s->server,
                   "HSET tidemill:k:default:0000000000000002 conversation %s token t "
                   "created %lld",
                   nth(9).text, (long long)fx->now);
  (void)server_ask(&s->server, "SET tidemill:h:{%s} x", nth(9).text);
  (void)server_ask(&s->server, "SET tidemill:l:tenant:default x");
  tm_commit c[4];
  tm_commit *items[4];
  for (int i = 0; i < 4; i++) {
    c[i] = commit_of(fx, nth(1 + i).text, 0, NULL);
    c[i].session = &session;
    c[i].start_key = (uint64_t)i + 1;
    items[i] = &c[i];
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, 4, &fx->err));
  assert_int_equal(c[0].status, TM_ECORRUPT);
  assert_int_equal(c[1].status, TM_ECORRUPT);
  assert_int_equal(c[2].status, TM_OK);
  assert_int_equal(c[3].status, TM_OK);
  assert_int_equal(head_of(fx, nth(3).text).revision, 1);
}

/* A page of a list ends with an id that is none. */
static void ids_that_are_none_end_no_list_in_a_circle(void **state) {
  setting *s = *state;
  const tm_list_filter all = {.status = -1, .limit = 1000};
  seen_heads seen = {0};
  begin_nth(&s->fx, 1, true);
  for (int i = 0; i < 250; i++)
    (void)server_ask(&s->server, "ZADD tidemill:l:all 0 z-%03d-that-is-longer-than-any-other-id",
                     i);
  assert_ok(&s->fx, s->fx.backend->list(s->fx.reader, &all, see_a_head, &seen, &s->fx.err));
  assert_int_equal(seen.count, 1);
}

static void damaged_records(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  tm_head head;
  turn(fx, nth(1).text, 0, 0, "{}");
  (void)server_ask(&s->server, "HSET tidemill:j:{%s} 1 nonsense", nth(1).text);
  assert_int_equal(
      fx->backend->chain(fx->reader, tm__slice(nth(1).text), 1, false, ignore_row, NULL, &fx->err),
      TM_ECORRUPT);
  assert_string_equal(fx->err.code, "store.damaged");
  (void)server_ask(&s->server, "HSET tidemill:h:{%s} status nonsense", nth(1).text);
  assert_int_equal(fx->backend->head(fx->reader, tm__slice(nth(1).text), &head, &fx->err),
                   TM_ECORRUPT);
}

static void make_nonsense(void *ud, const char *id) {
  setting *s = ud;
  (void)server_ask(&s->server, "HSET tidemill:e:{%s} 0000000000000001.00000000 nonsense", id);
}

/* A note that is longer than what there is. */
static void make_too_long(void *ud, const char *id) {
  setting *s = ud;
  (void)server_ask(&s->server, "HSET tidemill:e:{%s} 0000000000000001.00000000 %b", id,
                   "1 0 0 150 5 0 7\nx", (size_t)17);
}

static void one_event_stops_nobody(void **state) {
  setting *s = *state;
  damaged_event(&s->fx, make_nonsense, s);
}

static void nor_does_one_that_is_cut_off(void **state) {
  setting *s = *state;
  damaged_event(&s->fx, make_too_long, s);
}

static void harm_status(void *ud, const char *id) {
  setting *s = ud;
  (void)server_ask(&s->server, "HSET tidemill:h:{%s} status nonsense", id);
}

static void harm_tenant(void *ud, const char *id) {
  setting *s = ud;
  (void)server_ask(&s->server, "HDEL tidemill:h:{%s} tenant", id);
}

/* One bit of a letter: no text any more. */
static void harm_flow(void *ud, const char *id) {
  setting *s = ud;
  (void)server_ask(&s->server, "HSET tidemill:h:{%s} flow %b", id,
                   "\xf2"
                   "eturns",
                   (size_t)7);
}

static void one_head_stops_nobody(void **state) {
  setting *s = *state;
  damaged_head(&s->fx, harm_status, s);
}

static void nor_does_one_whose_flow_is_no_text(void **state) {
  setting *s = *state;
  damaged_head(&s->fx, harm_flow, s);
}

static void nor_does_one_without_a_tenant(void **state) {
  setting *s = *state;
  damaged_head(&s->fx, harm_tenant, s);
}

/* In its place is what another program wrote. */
static void nor_does_a_foreign_one(void **state) {
  setting *s = *state;
  const tm_list_filter all = {.status = -1, .limit = 8};
  seen_heads seen = {0};
  for (int n = 1; n <= 2; n++)
    begin_nth(&s->fx, n, true);
  (void)server_ask(&s->server, "SET tidemill:h:{%s} x", nth(1).text);
  assert_ok(&s->fx, s->fx.backend->list(s->fx.reader, &all, see_a_head, &seen, &s->fx.err));
  assert_one_damaged(&seen, 1);
  seen.count = 0;
  assert_ok(&s->fx,
            s->fx.backend->due(s->fx.writer, s->fx.now, 9, 1, see_a_head, &seen, &s->fx.err));
  assert_one_damaged(&seen, 1);
}

static const char *harm; /* what is set in the record of session s1 */

static void harm_session(void *ud) {
  setting *s = ud;
  char command[120];
  (void)snprintf(command, sizeof(command), "HSET tidemill:{sessions}:record:default:s1 %s", harm);
  (void)server_ask(&s->server, command);
}

static void take_record_away(void *ud) {
  setting *s = ud;
  (void)server_ask(&s->server, "SET tidemill:{sessions}:record:default:s1 x");
}

static void one_session_stops_nobody(void **state) {
  setting *s = *state;
  static const char *const harms[] = {"created 1",   "created x", "look_at -4", "flags 4294967296",
                                      "tenant acme", "id s2",     "ended 0x",   "order nonsense"};
  for (size_t i = 0; i < sizeof(harms) / sizeof(harms[0]); i++) {
    harm = harms[i];
    damaged_session(&s->fx, harm_session, s, true, true);
    fixture_close(&s->fx);
    (void)server_ask(&s->server, "FLUSHDB");
    fixture_open(&s->fx);
  }
  damaged_session(&s->fx, take_record_away, s, true, false);
}

/* Beside it a hint that is earlier than all, and what another program wrote. */
static void lose_event_key(void *ud, const char *id) {
  setting *s = ud;
  (void)server_ask(&s->server, "HDEL tidemill:e:{%s} 0000000000000001.00000000", id);
  (void)server_ask(&s->server, "HSET tidemill:e:{%s} 0000000000000001.0000000x %s", id,
                   "1 0 0 0 5 0 7\ndefault{}");
  (void)server_ask(&s->server, "ZADD tidemill:outbox 1 %s-and-more", id);
  (void)server_ask(&s->server, "SET tidemill:e:{other} x");
  (void)server_ask(&s->server, "ZADD tidemill:outbox 2 other");
}

static void nor_does_an_event_without_a_name(void **state) {
  setting *s = *state;
  nameless_event(&s->fx, lose_event_key, s);
}

static void lose_tenant(void *ud) {
  setting *s = ud;
  for (int i = 0; i < 200; i++) /* more than a page */
    (void)server_ask(&s->server, "ZADD tidemill:{tenants}:due %d %b%d", 1, "A\xff", (size_t)2, i);
  (void)server_ask(&s->server, "ZREM tidemill:{tenants}:due acme");
  (void)server_ask(&s->server, "ZREM tidemill:{tenants}:names acme");
  (void)server_ask(&s->server, "ZADD tidemill:{tenants}:names 0 %b", "A\xff", (size_t)2);
}

static void nor_does_a_tenant_without_a_name(void **state) {
  setting *s = *state;
  nameless_tenant(&s->fx, lose_tenant, s);
}

/* What another program wrote in the place of its events keeps the commit out, all of it. */
static void events_that_cannot_be_kept_are_no_half_a_commit(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  emit_two(fx, 1);
  (void)server_ask(&s->server, "SET tidemill:e:{%s} x", nth(1).text);
  tm_row row = row_of(fx, 1, "{}");
  const tm_outgoing event = {.created = fx->now, .body = TM_S("{}")};
  tm_commit c = commit_of(fx, nth(1).text, 1, &row);
  c.events = &event;
  c.event_count = 1;
  assert_int_equal(commit_one(fx, &c), TM_ECORRUPT);
  assert_int_equal(head_of(fx, nth(1).text).revision, 1);
  seen_heads seen = {0};
  begin_nth(fx, 2, true);
  assert_ok(fx, fx->backend->ended(fx->reader, fx->now, 9, see_a_head, &seen, &fx->err));
  assert_int_equal(seen.count, 1);
}

/* Start keys and lists that are another program's keep no sweep from its end. */
static void foreign_keys_stop_no_sweep(void **state) {
  setting *s = *state;
  bool more = true;
  (void)turn(&s->fx, nth(1).text, 0, 0, "{}");
  (void)server_ask(&s->server, "DEL tidemill:l:tenant:default");
  (void)server_ask(&s->server, "SET tidemill:l:tenant:default x");
  (void)server_ask(&s->server, "SET tidemill:k:default:0000000000000001 x");
  (void)server_ask(&s->server, "ZADD tidemill:keys 1 tidemill:k:default:0000000000000001");
  for (int i = 0; more; i++) {
    assert_true(i < 100);
    assert_ok(&s->fx, s->fx.backend->sweep(s->fx.writer, 10, &more, &s->fx.err));
  }
}

/* Its names stand in the lists. */
static void lose_name(void *ud) {
  setting *s = ud;
  char order[17];
  (void)snprintf(order, sizeof(order), "%016llx",
                 (unsigned long long)((uint64_t)(s->fx.now - 1) ^ UINT64_C(0x8000000000000000)));
  for (int own = 0; own < 2; own++) {
    const char *tail = own ? ":default" : "";
    char member[64], was[64];
    int n = snprintf(was, sizeof(was), "%s%s", order, own ? "s1" : "default");
    if (!own) {
      memcpy(was + n, "\0s1", 3);
      n += 3;
    }
    memcpy(member, was, (size_t)n);
    member[n] = '\xff';
    (void)server_ask(&s->server, "ZREM tidemill:{sessions}:all%s %b", tail, was, (size_t)n);
    (void)server_ask(&s->server, "ZADD tidemill:{sessions}:all%s 0 %b", tail, member,
                     (size_t)n + 1);
  }
  (void)server_ask(&s->server, "ZREM tidemill:{sessions}:due %b", "default\0s1", (size_t)10);
  (void)server_ask(&s->server, "ZADD tidemill:{sessions}:due 1 %b", "default\0s1\xff", (size_t)11);
  (void)server_ask(&s->server, "ZADD tidemill:{sessions}:due 1 none");
}

static void nor_does_a_session_without_a_name(void **state) {
  setting *s = *state;
  nameless_session(&s->fx, lose_name, s);
}

static void newer_stores_are_refused(void **state) {
  setting *s = *state;
  fixture_close(&s->fx);
  (void)server_ask(&s->server, "HSET tidemill:meta format 2");
  assert_refused(s, TM_ECORRUPT, "store.newer");
  (void)server_ask(&s->server, "HSET tidemill:meta format x");
  assert_refused(s, TM_ECORRUPT, "store.damaged");
}

/* Answers as a server of version 5 would, until it was asked for its version. */
static void *old_server(void *ud) {
  int listener = *(int *)ud, fd = accept(listener, NULL, NULL);
  char in[1 << 16];
  static const char info[] = "$21\r\nredis_version:5.0.14\n\r\n";
  size_t commands = 0;
  for (bool asked = false; fd >= 0 && !asked;) {
    ssize_t n = recv(fd, in, sizeof(in) - 1, 0);
    if (n <= 0) break;
    in[n] = '\0';
    asked = strstr(in, "\r\nINFO\r\n") != NULL;
    for (const char *p = in; (p = strstr(p, "\r\nLOAD\r\n")) != NULL || commands == 0; commands++) {
      if (commands > 0)
        (void)send_all(fd, "$2\r\nab\r\n", 8);
      else
        (void)send_all(fd, "+OK\r\n", 5);
      p = p != NULL ? p + 1 : in;
    }
    if (asked) (void)send_all(fd, info, sizeof(info) - 1);
  }
  (void)close(fd);
  return NULL;
}

static void old_servers_are_refused(void **state) {
  setting *s = *state;
  int port, listener = listen_somewhere(&port);
  pthread_t thread;
  fixture_close(&s->fx);
  assert_int_equal(pthread_create(&thread, NULL, old_server, &listener), 0);
  server_options(&s->fx, port);
  assert_refused(s, TM_EUNSUPPORTED, "store.server_version");
  assert_non_null(strstr(s->fx.err.message, "5.0"));
  assert_int_equal(pthread_join(thread, NULL), 0);
  (void)close(listener);
}

/* ---- what is unsafe ---- */

typedef struct told {
  int levels[3];
  char text[4096];
} told;

static void hear(void *ud, tm_finding level, const char *text) {
  told *t = ud;
  t->levels[level]++;
  size_t len = strlen(t->text);
  (void)snprintf(t->text + len, sizeof(t->text) - len, "%s\n", text);
}

static told inspect(setting *s, bool deep) {
  told t = {0};
  assert_ok(&s->fx, s->fx.backend->inspect(s->fx.reader, deep, hear, &t, &s->fx.err));
  return t;
}

static void assert_told(setting *s, tm_finding level, const char *words) {
  told t = inspect(s, false);
  assert_int_equal(t.levels[level], 1);
  assert_int_equal(t.levels[TM_FINDING_WARNING] + t.levels[TM_FINDING_ERROR], 1);
  if (strstr(t.text, words) == NULL) fail_msg("no \"%s\" in: %s", words, t.text);
}

static void unsafe_settings_are_told(void **state) {
  setting *s = *state;
  told t = inspect(s, false);
  assert_string_equal(t.text, "");
  (void)server_ask(&s->server, "CONFIG SET appendfsync everysec");
  assert_told(s, TM_FINDING_WARNING, "CONFIG SET appendfsync always");
  (void)server_ask(&s->server, "CONFIG SET appendfsync no");
  assert_told(s, TM_FINDING_WARNING, "appendfsync is no");
  (void)server_ask(&s->server, "CONFIG SET no-appendfsync-on-rewrite yes");
  assert_told(s, TM_FINDING_WARNING, "appendfsync is no"); /* it says all there is to say */
  (void)server_ask(&s->server, "CONFIG SET appendfsync always");
  assert_told(s, TM_FINDING_WARNING, "CONFIG SET no-appendfsync-on-rewrite no");
  (void)server_ask(&s->server, "CONFIG SET appendfsync everysec");
  assert_int_equal(inspect(s, false).levels[TM_FINDING_WARNING], 2);
  (void)server_ask(&s->server, "CONFIG SET appendfsync always");
  (void)server_ask(&s->server, "CONFIG SET no-appendfsync-on-rewrite no");
  assert_string_equal(inspect(s, false).text, "");
  (void)server_ask(&s->server, "CONFIG SET maxmemory-policy allkeys-lru");
  assert_string_equal(inspect(s, false).text, ""); /* without a limit nothing is thrown away */
  (void)server_ask(&s->server, "CONFIG SET maxmemory 1gb");
  assert_told(s, TM_FINDING_ERROR, "CONFIG SET maxmemory-policy noeviction");
  (void)server_ask(&s->server, "CONFIG SET maxmemory-policy volatile-lru");
  assert_told(s, TM_FINDING_WARNING, "volatile-lru");
  (void)server_ask(&s->server, "CONFIG SET maxmemory-policy noeviction");
  (void)server_ask(&s->server, "REPLICAOF 127.0.0.1 1");
  assert_told(s, TM_FINDING_ERROR, "is a replica");
  (void)server_ask(&s->server, "REPLICAOF NO ONE");
  (void)server_ask(&s->server, "ACL SETUSER default -config");
  assert_told(s, TM_FINDING_WARNING, "does not tell its appendfsync and no-appendfsync-on-rewrite");
  (void)server_ask(&s->server, "ACL SETUSER default +@all");
  (void)server_ask(&s->server, "CONFIG SET no-appendfsync-on-rewrite yes");
  (void)server_ask(&s->server, "CONFIG SET appendonly no");
  assert_told(s, TM_FINDING_ERROR, "CONFIG SET appendonly yes");
}

static void a_deep_look_reads_everything(void **state) {
  setting *s = *state;
  for (int i = 0; i < 5; i++) {
    turn(&s->fx, nth(i).text, 0, 0, "{}");
    turn(&s->fx, nth(i).text, 1, 1, "{}");
  }
  told t = inspect(s, true);
  assert_string_equal(t.text, "5 conversations were read\n");
  (void)server_ask(&s->server, "HSET tidemill:j:{%s} 1 nonsense", nth(1).text);
  (void)server_ask(&s->server, "DEL tidemill:j:{%s}", nth(2).text);
  t = inspect(s, true);
  assert_int_equal(t.levels[TM_FINDING_ERROR], 2);
  assert_non_null(strstr(t.text, nth(1).text));
  assert_non_null(strstr(t.text, nth(2).text));
}

/* ---- large ones ---- */

static tm_status compare_body(void *ud, const tm_row *row) {
  const tm_slice *expected = ud;
  assert_true(tm__slice_eq(row->body, *expected));
  return TM_ECANCELLED;
}

static void large_rows_in_one_group(void **state) {
  setting *s = *state;
  fixture *fx = &s->fx;
  enum { COUNT = 6 };
  tm_slice body = {NULL, (size_t)3 << 20};
  char *bytes = malloc(body.len);
  assert_non_null(bytes);
  for (size_t i = 0; i < body.len; i++)
    bytes[i] = (char)(i * 7 + i / 255);
  body.ptr = bytes;
  tm_row row = row_of(fx, 0, "");
  row.body = body;
  tm_commit commits[COUNT], *items[COUNT];
  for (int i = 0; i < COUNT; i++) {
    commits[i] = commit_of(fx, nth(i).text, 0, &row);
    items[i] = &commits[i];
  }
  assert_ok(fx, fx->backend->commit(fx->writer, items, COUNT, &fx->err));
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(commits[i].status, TM_OK);
    assert_int_equal(fx->backend->chain(fx->reader, tm__slice(nth(i).text), 1, false, compare_body,
                                        &body, &fx->err),
                     TM_ECANCELLED);
  }
  free(bytes);
}

#define CASE(f)                                                                                    \
  { #f, f, make, unmake, NULL }
#define CASE_ON(f, made)                                                                           \
  { #f, f, made, unmake, NULL }

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(addresses),
      CASE(databases_are_apart),
      CASE(tenants_have_keys_of_their_own),
      CASE_ON(passwords, make_locked),
      CASE(a_password_that_nobody_asked_for),
      CASE(forgotten_scripts_are_loaded_again),
      CASE_ON(nothing_touches_two_slots, make_cluster),
      CASE(hostile_ids_stay_in_one_slot),
      CASE_ON(a_node_without_slots, make_cluster),
      CASE(lost_hints_are_written_again),
      CASE(hints_that_lie_go),
      CASE(sweeps_rest),
      CASE(one_round_is_for_all_tenants),
      CASE(any_store_does_the_round),
      CASE(damage_ends_no_round),
      CASE(left_lists_are_settled),
      CASE(reservations_of_the_dead_are_free),
      CASE(a_reservation_without_the_key_in_the_head_is_free),
      CASE(a_full_server),
      CASE(a_replica),
      CASE(a_busy_server),
      CASE(a_server_without_room_for_clients),
      CASE(a_server_that_lets_one_do_little),
      CASE(keys_of_others),
      CASE(keys_of_others_at_a_start),
      CASE(ids_that_are_none_end_no_list_in_a_circle),
      CASE(damaged_records),
      CASE(one_session_stops_nobody),
      CASE(nor_does_an_event_without_a_name),
      CASE(nor_does_a_tenant_without_a_name),
      CASE(events_that_cannot_be_kept_are_no_half_a_commit),
      CASE(foreign_keys_stop_no_sweep),
      CASE(nor_does_a_session_without_a_name),
      CASE(one_event_stops_nobody),
      CASE(nor_does_one_that_is_cut_off),
      CASE(one_head_stops_nobody),
      CASE(nor_does_one_without_a_tenant),
      CASE(nor_does_one_whose_flow_is_no_text),
      CASE(nor_does_a_foreign_one),
      CASE(newer_stores_are_refused),
      CASE(old_servers_are_refused),
      CASE(unsafe_settings_are_told),
      CASE(a_deep_look_reads_everything),
      CASE(large_rows_in_one_group),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
