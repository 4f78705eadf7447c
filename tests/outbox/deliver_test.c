/* The deliverer with a webhook of its own and a clock that the test turns: when an event comes
 * again, when it is given up, what a stop leaves, and events of tenants with stores of their own.
 */
#include "net/http_server.h"
#include "outbox/deliver.h"
#include "outbox/list.h"
#include "tests/journal/fixture.h"

#define POSTS    64
#define TIMEOUT  2000
#define DAY      INT64_C(86400000)
#define FOREVER  1000000000 /* ms; nobody looks unasked */
#define IS_LATER "\"last_error\":\"the webhook answered 500\""

typedef struct post { /* what the webhook heard */
  char id[80], tenant[16], attempt[8];
} post;

typedef struct office { /* a deliverer, its thread, and whom it tells */
  fixture *fx;
  host control; /* the thread only */
  tm_http_client *client;
  tm_deliver *deliver;
  tm_scheduler *scheduler;
  tm_http_server *server;
  char url[64];
  /* under the lock of the fixture */
  post posts[POSTS];
  size_t count;
  size_t asked; /* tenants, by the scheduler */
  int status;   /* what it answers; 0: nothing yet */
  tm_http_exchange *held;
} office;

/* ---- the webhook ---- */

static void copy_text(char *out, size_t size, tm_slice text) {
  assert_true(tm__copy(out, size, text));
}

static void on_post(void *ud, tm_http_exchange *x) {
  office *o = ud;
  tm_buf tenant = {0};
  uv_mutex_lock(&o->fx->lock);
  assert_true(o->count < POSTS);
  post *p = &o->posts[o->count++];
  copy_text(p->id, sizeof(p->id), tm__http_header(x, "Tidemill-Event-Id"));
  copy_text(p->attempt, sizeof(p->attempt), tm__http_header(x, "Tidemill-Attempt"));
  assert_true(tm__json_get_text(tm__http_body(x), "tenant", &tenant));
  copy_text(p->tenant, sizeof(p->tenant), tm__buf_view(&tenant));
  int status = o->status;
  if (status == 0) o->held = x;
  uv_cond_broadcast(&o->fx->changed);
  uv_mutex_unlock(&o->fx->lock);
  tm__buf_free(&tenant);
  if (status != 0) tm__http_reply(x, status, "text/plain", TM_S(""), NULL);
}

static void on_refused(void *ud, tm_http_exchange *x, int status, const char *code,
                       const char *detail) {
  (void)ud, (void)code, (void)detail;
  tm__http_reply(x, status, "text/plain", TM_S(""), NULL);
}

static void answers(office *o, int status) {
  uv_mutex_lock(&o->fx->lock);
  o->status = status;
  uv_mutex_unlock(&o->fx->lock);
}

/* The n-th post, from 0, is waited for. */
static post nth_post(office *o, size_t n) {
  uv_mutex_lock(&o->fx->lock);
  while (o->count <= n)
    wait_change(o->fx);
  post p = o->posts[n];
  uv_mutex_unlock(&o->fx->lock);
  return p;
}

static size_t posts(office *o) {
  uv_mutex_lock(&o->fx->lock);
  size_t count = o->count;
  uv_mutex_unlock(&o->fx->lock);
  return count;
}

/* ---- the deliverer ---- */

static void deliver_start_quiet(office *o, int64_t give_up_ms, int64_t quiet_ms) {
  tm_error err;
  assert_int_equal(tm__worker_start(&o->control.worker, "control", &err), TM_OK);
  assert_int_equal(tm__http_client_new(&o->client, o->control.worker, 8, &err), TM_OK);
  const tm_deliver_options d = {.worker = o->control.worker,
                                .storage = o->fx->storage,
                                .client = o->client,
                                .clock = {fixture_now, o->fx},
                                .log = &o->fx->log,
                                .url = o->url,
                                .secret = "secret",
                                .timeout_ms = TIMEOUT,
                                .give_up_ms = give_up_ms,
                                .poll_ms = FOREVER,
                                .quiet_ms = quiet_ms};
  assert_int_equal(tm__deliver_new(&o->deliver, &d, &err), TM_OK);
}

static void deliver_start(office *o, int64_t give_up_ms) {
  deliver_start_quiet(o, give_up_ms, 0);
}

static void stop_now(void *ud) {
  office *o = ud;
  if (o->scheduler != NULL) tm__scheduler_stop(o->scheduler);
  tm__deliver_stop(o->deliver);
  tm__http_client_close(o->client);
}

static void nothing(void *ud) {
  (void)ud;
}

static void deliver_stop(office *o) {
  on_worker(&o->control, stop_now, o);
  assert_int_equal(tm__worker_stop(o->control.worker), 0);
  tm__scheduler_free(o->scheduler);
  o->scheduler = NULL;
  tm__deliver_free(o->deliver);
}

static void office_open(office *o, fixture *fx) {
  tm_error err;
  *o = (office){.fx = fx, .control = {.fx = fx}, .status = 200};
  const tm_http_options h = {.host = "127.0.0.1",
                             .body_limit = 65536,
                             .memory_limit = 1 << 20,
                             .connection_limit = 64,
                             .idle_timeout_s = 60,
                             .request_timeout_s = 60,
                             .log = &fx->log,
                             .handler = on_post,
                             .refuse = on_refused,
                             .ud = o};
  assert_int_equal(tm__http_server_start(&o->server, &h, &err), TM_OK);
  (void)snprintf(o->url, sizeof(o->url), "http://127.0.0.1:%d/", tm__http_server_port(o->server));
}

static void office_close(office *o) {
  if (o->held != NULL) tm__http_reply(o->held, 200, "text/plain", TM_S(""), NULL);
  tm__http_server_stop(o->server);
}

/* ---- the outbox ---- */

static answer *outbox(fixture *fx) {
  answer *a = answer_new(fx);
  tm__outbox_list(fx->storage, tm__slice(fx->tenant), NULL, TM_S(""), 0, on_reply, a);
  assert_answer(a);
  return a;
}

/* Until the list says so, which it does once the store has been told. */
static void until(fixture *fx, const char *text) {
  for (int i = 0; strstr(outbox(fx)->json, text) == NULL; i++)
    assert_true(i < 100000);
}

/* Until nothing of the conversation is left: an event whose answer is not settled yet would come
 * again if the clock were turned. */
static void until_gone(fixture *fx, const char *conversation) {
  for (int i = 0; strstr(outbox(fx)->json, conversation) != NULL; i++)
    assert_true(i < 100000);
}

static void at(fixture *fx, office *o, int64_t ms) {
  turn_clock(fx, ms);
  tm__deliver_hint(o->deliver);
}

/* ---- tests ---- */

static void test_comes_again_when_it_is_due(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    office o;
    char one[TM_ID_SIZE], other[TM_ID_SIZE];
    office_open(&o, &fx);
    deliver_start(&o, DAY);
    answers(&o, 500);
    assert_answer(start(&fx.hosts[0], one, "emit"));
    at(&fx, &o, 0);
    post first = nth_post(&o, 0);
    assert_string_equal(first.attempt, "1");
    until(&fx, IS_LATER);
    turn_clock(&fx, 4999);
    assert_answer(start(&fx.hosts[0], other, "emit")); /* a look that finds something */
    at(&fx, &o, 0);
    assert_memory_equal(nth_post(&o, 1).id, other, strlen(other));
    assert_holds(outbox(&fx), "\"attempts\":1");
    assert_null(strstr(outbox(&fx)->json, "\"attempts\":2"));
    answers(&o, 200);
    at(&fx, &o, 1251);
    post again = nth_post(&o, 2);
    assert_string_equal(again.id, first.id);
    assert_string_equal(again.attempt, "2");
    assert_memory_equal(nth_post(&o, 3).id, one, strlen(one)); /* the next of that conversation */
    until_gone(&fx, one);
    until(&fx, IS_LATER); /* the other's */
    at(&fx, &o, 10000);
    (void)nth_post(&o, 5);
    until(&fx, "\"items\":[]");
    assert_int_equal(posts(&o), 6);
    deliver_stop(&o);
    office_close(&o);
  }
}

static void test_is_given_up_and_tried_again(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    office o;
    char id[TM_ID_SIZE];
    office_open(&o, &fx);
    deliver_start(&o, 1);
    answers(&o, 500);
    assert_answer(start(&fx.hosts[0], id, "emit"));
    at(&fx, &o, 0);
    post first = nth_post(&o, 0);
    until(&fx, IS_LATER);
    at(&fx, &o, 6251);
    assert_string_equal(nth_post(&o, 1).attempt, "2");
    until(&fx, "\"status\":\"dead\"");
    post next = nth_post(&o, 2); /* it holds nobody up any more */
    assert_string_equal(next.attempt, "1");
    assert_string_not_equal(next.id, first.id);
    until(&fx, "\"dead_at\":null," IS_LATER);
    answers(&o, 200);
    answer *a = answer_new(&fx);
    tm__outbox_retry(fx.storage, tm__slice(fx.tenant), tm__slice(first.id), fixture_now(&fx),
                     on_reply, a);
    assert_answer(a);
    assert_member(a, "attempts", "0");
    at(&fx, &o, 10000);
    (void)nth_post(&o, 4);
    until(&fx, "\"items\":[]");
    a = answer_new(&fx);
    tm__outbox_retry(fx.storage, tm__slice(fx.tenant), tm__slice(first.id), fixture_now(&fx),
                     on_reply, a);
    assert_refused(await(a), TM_ENOTFOUND, "outbox.not_found");
    deliver_stop(&o);
    office_close(&o);
  }
}

static void test_what_a_stop_leaves_is_due_when_its_lease_ends(void **unused) {
  (void)unused;
  EACH_BACKEND(fx) {
    office o;
    char id[TM_ID_SIZE], other[TM_ID_SIZE];
    office_open(&o, &fx);
    assert_answer(start(&fx.hosts[0], id, "emit"));
    deliver_start_quiet(&o, DAY, FOREVER);
    at(&fx, &o, 0);
    on_worker(&o.control, nothing, NULL); /* it has heard that */
    deliver_stop(&o);                     /* too short to deliver anything: it takes nothing */
    assert_null(strstr(outbox(&fx)->json, "\"attempts\":1"));
    deliver_start(&o, DAY);
    answers(&o, 0);
    at(&fx, &o, 0);
    post first = nth_post(&o, 0);
    deliver_stop(&o);
    answers(&o, 200);
    deliver_start(&o, DAY);
    turn_clock(&fx, 3 * TIMEOUT - 1);
    assert_answer(start(&fx.hosts[0], other, "emit"));
    at(&fx, &o, 0);
    assert_memory_equal(nth_post(&o, 1).id, other, strlen(other));
    (void)nth_post(&o, 2);
    at(&fx, &o, 1);
    post again = nth_post(&o, 3);
    assert_string_equal(again.id, first.id);
    assert_string_equal(again.attempt, "2");
    until(&fx, "\"items\":[]");
    deliver_stop(&o);
    office_close(&o);
  }
}

/* ---- tenants with stores of their own ---- */

static void isolated_open(fixture *fx, const char *backend) {
  fixture_init(fx, backend);
  fx->isolated = true;
  storage_start(fx);
  host_start(fx, 0);
}

static office *delivering; /* by the scheduler */

static void on_events(void *ud, const char *tenant) {
  (void)ud;
  tm__deliver_tenant(delivering->deliver, tenant);
}

static tm_status on_asked(void *ud, const tm_store_access *a, const char *tenant, tm_error *err) {
  office *o = delivering;
  (void)ud, (void)a, (void)tenant, (void)err;
  uv_mutex_lock(&o->fx->lock);
  o->asked++;
  uv_cond_broadcast(&o->fx->changed);
  uv_mutex_unlock(&o->fx->lock);
  return TM_OK;
}

static void look_at_tenants(office *o, bool with_events) {
  tm_error err;
  const tm_scheduler_options s = {.worker = o->control.worker,
                                  .storage = o->fx->storage,
                                  .clock = {fixture_now, o->fx},
                                  .log = &o->fx->log,
                                  .poll_ms = FOREVER,
                                  .wake = on_due,
                                  .sessions = on_asked,
                                  .events = with_events ? on_events : NULL,
                                  .ud = &o->fx->hosts[0]};
  delivering = o;
  assert_int_equal(tm__scheduler_new(&o->scheduler, &s, &err), TM_OK);
}

/* A host without a webhook asks both tenants once. */
static void look_without_a_webhook(office *o) {
  deliver_start(o, DAY);
  look_at_tenants(o, false);
  uv_mutex_lock(&o->fx->lock);
  while (o->asked < 2)
    wait_change(o->fx);
  uv_mutex_unlock(&o->fx->lock);
  deliver_stop(o); /* waits for what it has begun */
}

static void test_tenants_apart(void **unused) {
  (void)unused;
  EACH_OPENED(fx, isolated_open) {
    office o;
    char ids[2][TM_ID_SIZE];
    office_open(&o, &fx);
    answers(&o, 500);
    for (int i = 0; i < 2; i++) {
      fx.tenant = i == 0 ? "t1" : "t2";
      assert_answer(start(&fx.hosts[0], ids[i], "emit"));
    }
    look_without_a_webhook(&o);
    turn_clock(&fx, 60000);
    deliver_start(&o, DAY);
    look_at_tenants(&o, true); /* its first look finds both in the store of all */
    post first[2] = {nth_post(&o, 0), nth_post(&o, 1)};
    for (int i = 0; i < 2; i++)
      assert_memory_equal(first[i].id, ids[strcmp(first[i].tenant, "t2") == 0], TM_ID_SIZE - 1);
    for (int i = 0; i < 2; i++) {
      fx.tenant = i == 0 ? "t1" : "t2";
      until(&fx, IS_LATER);
      assert_null(strstr(outbox(&fx)->json, ids[1 - i]));
    }
    answers(&o, 200);
    turn_clock(&fx, 6251);
    tm__scheduler_poke(o.scheduler);
    (void)nth_post(&o, 5);
    for (int i = 0; i < 2; i++) {
      fx.tenant = i == 0 ? "t1" : "t2";
      until(&fx, "\"items\":[]");
    }
    assert_int_equal(posts(&o), 6);
    deliver_stop(&o);
    office_close(&o);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_comes_again_when_it_is_due),
      cmocka_unit_test(test_is_given_up_and_tried_again),
      cmocka_unit_test(test_what_a_stop_leaves_is_due_when_its_lease_ends),
      cmocka_unit_test(test_tenants_apart),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
