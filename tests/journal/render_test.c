/* Rendering from rows: the whole text of a turn and of a conversation; and rows that are damaged.
 */
#include "fixture.h"
#include "journal/render.h"

static tm_head head_of(const char *id) {
  tm_head h = {.status = TM_FAILED, .revision = 9, .created = 5};
  (void)tm__copy(h.id, sizeof(h.id), tm__slice(id));
  (void)tm__copy(h.tenant, sizeof(h.tenant), TM_S("t1"));
  (void)tm__copy(h.session, sizeof(h.session), TM_S("s\"1"));
  (void)tm__copy(h.system, sizeof(h.system), TM_S("shop"));
  (void)tm__copy(h.flow, sizeof(h.flow), TM_S("orders"));
  (void)tm__copy(h.version, sizeof(h.version), TM_S("v1"));
  return h;
}

#define IDENTITY                                                                                   \
  "{\"conversation_id\":\"c1\",\"session_id\":\"s\\\"1\",\"system\":\"shop\","                     \
  "\"flow_id\":\"orders\",\"flow_version\":\"v1\","

static void test_turn(void **unused) {
  (void)unused;
  const tm_head head = head_of("c1");
  const tm_slice rows[] = {
      TM_S("{\"messages\":[{\"role\":\"user\",\"seq\":1,\"text\":\"hi\"},{\"agent\":\"a\","
           "\"provider\":\"offline\",\"role\":\"agent\",\"seq\":2,\"step_id\":\"s\",\"text\":\"x\"}"
           "],"
           "\"runtime\":{},\"state\":{},\"status\":\"active\",\"step\":\"s\",\"wake_at\":0}"),
      TM_S("{\"error\":{\"code\":\"e\"},\"messages\":[{\"role\":\"agent\",\"seq\":3,\"text\":\"y\"}"
           "],"
           "\"runtime\":{},\"state\":{},\"status\":\"failed\",\"step\":\"\",\"wake_at\":0}"),
  };
  tm_buf out = {0};
  tm__render_turn(&out, &head, 4, rows, 2, true);
  assert_string_equal(
      out.ptr, IDENTITY
      "\"status\":\"failed\",\"revision\":4,\"current_step\":null,\"replies\":[{\"seq\":2,"
      "\"step_id\":\"s\",\"agent\":\"a\",\"text\":\"x\",\"provider\":\"offline\"},{\"seq\":3,"
      "\"step_id\":null,\"agent\":null,\"text\":\"y\",\"provider\":null}],\"prompt\":null,"
      "\"error\":{\"code\":\"e\"},\"durable\":true}");
  tm__buf_free(&out);
}

/* What a role is asked, or what else is waited for, is not the user's prompt. */
static void test_waiting_for(void **unused) {
  (void)unused;
  const tm_head head = head_of("c1");
  const tm_slice row = TM_S("{\"messages\":[],\"prompt\":{\"role\":\"boss\",\"text\":\"?\"},"
                            "\"status\":\"waiting_approval\",\"step\":\"ok\"}");
  const tm_render_record r = {.prompt = TM_S("{\"role\":\"boss\"}"), .state = TM_S("{}")};
  tm_buf out = {0};
  tm__render_turn(&out, &head, 4, &row, 1, true);
  assert_non_null(strstr(out.ptr, "\"replies\":[],\"prompt\":null,\"waiting_for\":{\"role\":"
                                  "\"boss\",\"text\":\"?\"},\"durable\":true}"));
  tm__buf_clear(&out);
  tm__render_conversation(&out, &head, &r);
  assert_non_null(
      strstr(out.ptr, "\"prompt\":null,\"waiting_for\":{\"role\":\"boss\"},\"durable\""));
  const tm_render_record event = {.prompt = TM_S("{\"event\":\"paid\",\"expires_at\":5}"),
                                  .state = TM_S("{}")};
  tm__buf_clear(&out);
  tm__render_conversation(&out, &head, &event);
  assert_non_null(strstr(out.ptr, "\"prompt\":null,\"waiting_for\":{\"event\":\"paid\","
                                  "\"expires_at\":5},\"durable\""));
  tm__buf_free(&out);
}

/* Before the next turn a rollback has it beside what was restored; a fork has used nothing. */
static void test_usage(void **unused) {
  (void)unused;
  static const char *const cases[][2] = {
      {"{\"usage\":{\"cpu_us\":7}}", "\"usage\":{\"cpu_us\":7}}"},
      {"{\"restored\":{\"moved\":1,\"usage\":{\"cpu_us\":9}},\"usage\":{\"cpu_us\":7}}",
       "\"usage\":{\"cpu_us\":9}}"},
      {"{\"restored\":{\"forked\":1,\"moved\":1},\"usage\":{\"cpu_us\":7}}", "\"usage\":null}"},
  };
  const tm_head head = head_of("c1");
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    const tm_render_record r = {.state = TM_S("{}"), .runtime = tm__slice(cases[i][0])};
    tm_buf out = {0};
    tm__render_conversation(&out, &head, &r);
    assert_non_null(strstr(out.ptr, cases[i][1]));
    tm__buf_free(&out);
  }
}

/* Of a step that runs or waits; one that was gone back to waits since then. */
static void test_progress(void **unused) {
  (void)unused;
  const tm_head head = head_of("c1");
  const tm_slice row = TM_S("{\"messages\":[],\"runtime\":{\"progress\":{\"expected_ms\":50,"
                            "\"started\":7}},\"status\":\"waiting_input\",\"step\":\"s\"}");
  const tm_render_record r = {
      .state = TM_S("{}"),
      .runtime = TM_S("{\"progress\":{\"expected_ms\":50,\"started\":7},\"restored\":"
                      "{\"moved\":30}}")};
  tm_buf out = {0};
  tm__render_turn(&out, &head, 4, &row, 1, true);
  assert_non_null(strstr(
      out.ptr, "\"prompt\":null,\"progress\":{\"started\":7,\"expected_ms\":50},\"durable\""));
  tm__buf_clear(&out);
  tm__render_conversation(&out, &head, &r);
  assert_non_null(strstr(
      out.ptr, "\"prompt\":null,\"progress\":{\"started\":37,\"expected_ms\":50},\"durable\""));
  tm__buf_free(&out);
}

static void test_conversation(void **unused) {
  (void)unused;
  const tm_head head = head_of("c1");
  const tm_render_record r = {.error = TM_S("{\"code\":\"e\"}"),
                              .state = TM_S("{\"a\":1}"),
                              .runtime = TM_S("{\"feedback\":5,\"seq\":2}"),
                              .updated = 7};
  tm_buf out = {0};
  tm__render_conversation(&out, &head, &r);
  assert_string_equal(out.ptr, IDENTITY
                      "\"status\":\"failed\",\"revision\":9,\"current_step\":null,\"prompt\":null,"
                      "\"error\":{\"code\":\"e\"},\"durable\":false,\"created\":5,\"updated\":7,"
                      "\"state\":{\"a\":1},\"summary\":null,\"feedback\":5,\"usage\":null}");
  tm__buf_free(&out);
}

typedef struct plain_commit {
  tm_commit_job job;
  uv_sem_t done;
} plain_commit;

static void committed(tm_message *m) {
  uv_sem_post(&((plain_commit *)(void *)m)->done);
}

/* A conversation whose only row has this body. */
static void store_row(fixture *fx, char id[TM_ID_SIZE], const char *body, uint32_t flags) {
  tm__uuid7(id, fx->now);
  const tm_row row = {
      .kind = TM_ROW_TURN, .created = fx->now, .flags = flags, .body = tm__slice(body)};
  plain_commit c = {.job = {.message = {.run = committed}}};
  c.job.commit.head = head_of(id);
  c.job.commit.head.status = TM_WAITING_INPUT;
  c.job.commit.head.revision = 1;
  c.job.commit.head.wake_at = fx->now;
  c.job.commit.row = &row;
  assert_int_equal(uv_sem_init(&c.done, 0), 0);
  tm__storage_commit(fx->storage, &c.job);
  uv_sem_wait(&c.done);
  uv_sem_destroy(&c.done);
  assert_int_equal(c.job.commit.status, TM_OK);
}

#define GOOD_ROW                                                                                   \
  "{\"runtime\":{},\"state\":{},\"status\":\"waiting_input\",\"step\":\"\",\"wake_at\":0}"

static void test_damaged(void **unused) {
  (void)unused;
  static const struct {
    const char *body;
    uint32_t flags;
  } bad[] = {
      {"{}", 0},
      {"", 0},
      {"nonsense", 0},
      {"{\"delta\":{\"set\":{},\"unset\":[]},\"runtime\":{},\"status\":\"waiting_input\"}", 0},
      {GOOD_ROW, 1 << 30}, /* written by a newer program */
  };
  EACH_BACKEND(fx) {
    char id[TM_ID_SIZE];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
      store_row(&fx, id, bad[i].body, bad[i].flags);
      const char *code = bad[i].flags == 0 ? "journal.damaged" : "journal.newer";
      assert_refused(say(&fx.hosts[0], id, "hello"), TM_ECORRUPT, code);
      assert_refused(read_it(&fx, id, TM_READ_CONVERSATION, "", 0), TM_ECORRUPT, code);
      wake(&fx.hosts[0], id); /* put off: it does not block the deadlines behind it */
      while (stored_head(&fx, id).wake_at <= fx.now) {
      }
    }
    assert_int_equal(fx.turns, 0);
    store_row(&fx, id, GOOD_ROW, 0);
    assert_answer(say(&fx.hosts[0], id, "hello"));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_turn),     cmocka_unit_test(test_waiting_for),
      cmocka_unit_test(test_progress), cmocka_unit_test(test_conversation),
      cmocka_unit_test(test_usage),    cmocka_unit_test(test_damaged),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
