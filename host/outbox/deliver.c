/* deliver.c - take, post, settle. Store jobs run on the storage's threads, everything else on the
 * worker. Whatever waits for a job is freed when the job has come back, or with the deliverer. */
#include "outbox/deliver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "outbox/event_id.h"
#include "outbox/retry.h"
#include "outbox/sign.h"

#define HEADERS 7
#define TENANTS 32 /* that wait to be asked; others come again */

typedef struct delivery {
  tm_store_job job; /* settles it */
  tm_message settled;
  struct tm_deliver *deliver;
  struct delivery *next;
  tm_outgoing event; /* its body is the one that was stored */
  bool in_memory;
  char id[TM_EVENT_ID_SIZE];
  tm_buf body; /* what is posted */
  uint64_t call;
  bool calling, storing;
  tm_outcome outcome;
  int64_t at;
} delivery;

struct tm_deliver {
  tm_deliver_options o;
  tm_message start, poke, landed;
  bool poked; /* atomic: the message is under way */
  tm_store_job job;
  uv_sem_t has_landed;       /* a job has come back, and nothing of it is on its thread any more */
  delivery *taken;           /* by the job that is out, or has come back */
  bool no_memory;            /* for one of them */
  bool failing;              /* the newest one did */
  int64_t now, next;         /* of that job; when the next one is due, 0: none is known */
  size_t room;               /* how many it may take */
  delivery *all;             /* under way */
  size_t count;              /* of them */
  char tenants[TENANTS][65]; /* with stores of their own, to be asked */
  size_t tenant_count;
  uint64_t timer;
  bool begun; /* the quiet is over */
  bool armed, reading, again, stopped;
};

static void look(tm_deliver *d);
static bool ask_tenant(tm_deliver *d);

/* ---- deliveries ---- */

static void delivery_free(delivery *one) {
  tm__buf_free(&one->body);
  free(one);
}

static void forget(tm_deliver *d, delivery *one) {
  delivery **at = &d->all;
  while (*at != one)
    at = &(*at)->next;
  *at = one->next;
  d->count--;
  delivery_free(one);
}

/* What was stored, behind what only the store knows. */
static void write_body(delivery *one) {
  const tm_outgoing *e = &one->event;
  tm__buf_byte(&one->body, '{');
  tm__json_member_text(&one->body, "id", one->id);
  tm__json_member_text(&one->body, "tenant", e->tenant);
  tm__json_member_text(&one->body, "conversation_id", e->conversation);
  tm__buf_byte(&one->body, ',');
  tm__buf_slice(&one->body, (tm_slice){e->body.ptr + 1, e->body.len - 1});
}

/* ---- settling ---- */

static tm_status settle_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  delivery *one = (delivery *)(void *)job;
  return tm__access_settle_event(a, one->in_memory, &one->event, one->outcome, one->at, err);
}

static void on_stored(tm_message *m) { /* on the writer's thread */
  delivery *one = (delivery *)((char *)m - offsetof(delivery, job.message));
  tm_deliver *d = one->deliver;
  tm__worker_post(d->o.worker, &one->settled);
  uv_sem_post(&d->has_landed);
}

static void want_tenant(tm_deliver *d, const char *tenant) {
  for (size_t i = 0; i < d->tenant_count; i++)
    if (strcmp(d->tenants[i], tenant) == 0) return;
  if (d->tenant_count < TENANTS)
    (void)tm__copy(d->tenants[d->tenant_count++], sizeof(d->tenants[0]), tm__slice(tenant));
}

/* What could not be settled is due again when its lease ends. */
static void on_settled(tm_message *m) {
  delivery *one = (delivery *)((char *)m - offsetof(delivery, settled));
  tm_deliver *d = one->deliver;
  if (d->stopped) return;
  uv_sem_wait(&d->has_landed);
  if (one->job.status != TM_OK && one->job.status != TM_ECONFLICT)
    tm__log_error(d->o.log, TM_LOG_WARNING, "an event cannot be settled", &one->job.error);
  if (one->job.tenant[0] != '\0') want_tenant(d, one->job.tenant);
  forget(d, one);
  look(d);
}

static void settle(delivery *one, tm_outcome outcome, int64_t at) {
  one->outcome = outcome;
  one->at = at;
  one->storing = true;
  one->settled.run = on_settled;
  one->job = (tm_store_job){.message.run = on_stored, .write = true, .work = settle_work};
  tm_storage *storage = one->deliver->o.storage;
  if (tm__storage_isolated(storage) && !one->in_memory)
    memcpy(one->job.tenant, one->event.tenant, sizeof(one->job.tenant));
  tm__storage_run(storage, &one->job);
}

static void failed(delivery *one, bool for_good) {
  tm_deliver *d = one->deliver;
  int64_t now = tm__clock_now(&d->o.clock);
  int64_t age = now - one->event.created;
  int64_t ms =
      for_good ? 0
               : tm__outbox_retry_ms(one->event.attempts, age, d->o.give_up_ms, tm__slice(one->id));
  if (ms == 0)
    tm__log(d->o.log, TM_LOG_ERROR, "an event was given up", "event_id", one->id, "reason",
            one->event.note, NULL);
  settle(one, ms > 0 ? TM_OUTCOME_LATER : TM_OUTCOME_DEAD, ms > 0 ? now + ms : now);
}

static void on_answer(void *ud, const tm_http_result *result) {
  delivery *one = ud;
  char *note = one->event.note;
  one->calling = false;
  if (result->error != NULL)
    (void)snprintf(note, sizeof(one->event.note), "%.150s", result->error->message);
  else
    (void)snprintf(note, sizeof(one->event.note), "the webhook answered %d", result->status);
  bool done = result->error == NULL && result->status >= 200 && result->status <= 299;
  if (done)
    settle(one, TM_OUTCOME_DELIVERED, tm__clock_now(&one->deliver->o.clock));
  else
    failed(one, result->error == NULL && result->status == 410);
}

/* ---- posting ---- */

/* Lines one behind the other, each with its NUL; `lines` points at them. */
static bool write_headers(const delivery *one, tm_buf *text, const char *lines[HEADERS]) {
  const tm_deliver_options *o = &one->deliver->o;
  int64_t seconds = tm__clock_now(&o->clock) / 1000;
  tm_buf name = {0};
  bool named = tm__json_get_text(one->event.body, "event", &name);
  tm__buf_printf(text, "Content-Type: application/json%c", 0);
  tm__buf_printf(text, "Tidemill-Event: %s%c", named ? name.ptr : "", 0);
  tm__buf_printf(text, "Tidemill-Event-Id: %s%c", one->id, 0);
  tm__buf_printf(text, "Tidemill-Attempt: %d%c", one->event.attempts, 0);
  tm__buf_printf(text, "Tidemill-Timestamp: %lld%c", (long long)seconds, 0);
  tm__buf_text(text, "Tidemill-Signature: ");
  tm__outbox_sign(text, o->secret, o->previous_secret, seconds, tm__buf_view(&one->body));
  tm__buf_byte(text, '\0');
  bool ok = tm__buf_ok(text) && tm__buf_ok(&name);
  tm__buf_free(&name);
  const char *at = text->ptr;
  for (int i = 0; ok && i < HEADERS - 1; i++, at += strlen(at) + 1)
    lines[i] = at;
  lines[HEADERS - 1] = NULL;
  return ok;
}

static void post(delivery *one) {
  tm_deliver *d = one->deliver;
  const char *lines[HEADERS] = {NULL};
  tm_buf text = {0};
  tm_error err;
  tm_status status = tm__buf_ok(&one->body) && write_headers(one, &text, lines)
                         ? TM_OK
                         : tm__fail_memory(&err, "an event");
  const tm_http_call call = {.method = "POST",
                             .url = d->o.url,
                             .headers = lines,
                             .body = tm__buf_view(&one->body),
                             .timeout_ms = d->o.timeout_ms,
                             .discard = true};
  if (status == TM_OK)
    status = tm__http_start(d->o.client, &call, on_answer, one, &one->call, &err);
  tm__buf_free(&text);
  one->calling = status == TM_OK;
  if (one->calling) return;
  (void)snprintf(one->event.note, sizeof(one->event.note), "%.150s", err.message);
  failed(one, false);
}

/* ---- taking ---- */

static tm_status on_event(void *ud, const tm_outgoing *event) {
  tm_deliver *d = ud;
  delivery *one = calloc(1, sizeof(*one));
  if (one == NULL) { /* due again when its lease ends */
    d->no_memory = true;
    return TM_OK;
  }
  one->deliver = d;
  one->event = *event;
  tm__event_id(one->id, event);
  if (event->body.len > 2) write_body(one);
  one->next = d->taken;
  d->taken = one;
  return TM_OK;
}

/* The body is borrowed for the walk: what is left of it is in what will be posted. */
static void end_borrowing(delivery *list, bool in_memory, const delivery *until) {
  for (; list != until; list = list->next) {
    size_t len = list->event.body.len;
    list->in_memory = in_memory;
    list->event.body = (tm_slice){NULL, 0};
    if (len > 2 && tm__buf_ok(&list->body))
      list->event.body = (tm_slice){list->body.ptr, list->body.len};
  }
}

static tm_status take_from(tm_deliver *d, const tm_store_access *a, bool in_memory, size_t *left,
                           tm_error *err) {
  int64_t next = 0;
  delivery *before = d->taken;
  tm_status status = tm__access_next_event(a, in_memory, &next, err);
  if (status != TM_OK) return status;
  if (next > 0 && next <= d->now && *left > 0) {
    status = tm__access_take_events(a, in_memory, d->now, d->now + 3 * d->o.timeout_ms, *left,
                                    on_event, d, err);
    end_borrowing(d->taken, in_memory, before);
    for (const delivery *one = d->taken; one != before; one = one->next)
      --*left;
    if (status == TM_OK) status = tm__access_next_event(a, in_memory, &next, err);
    if (next <= d->now && d->taken == before) next = 0; /* others have it, or nobody can */
  }
  if (status != TM_OK) return status;
  if (next > 0 && d->job.tenant[0] == '\0' && (d->next == 0 || next < d->next)) d->next = next;
  return status;
}

static tm_status take_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  tm_deliver *d = (tm_deliver *)((char *)job - offsetof(tm_deliver, job));
  size_t left = d->room;
  if (job->tenant[0] != '\0') return take_from(d, a, false, &left, err);
  d->next = 0;
  tm_status status = take_from(d, a, true, &left, err);
  return status == TM_OK ? take_from(d, a, false, &left, err) : status;
}

static void on_taken(tm_message *m) { /* on the writer's thread */
  tm_deliver *d = (tm_deliver *)((char *)m - offsetof(tm_deliver, job.message));
  tm__worker_post(d->o.worker, &d->landed);
  uv_sem_post(&d->has_landed);
}

static void on_timer(void *ud) {
  tm_deliver *d = ud;
  d->armed = false;
  d->begun = true;
  look(d);
}

static void arm(tm_deliver *d) {
  int64_t now = tm__clock_now(&d->o.clock), ms = d->begun ? d->o.poll_ms : d->o.quiet_ms;
  if (d->count < TM_DELIVER_MOST && d->next > 0 && d->next - now < ms) ms = d->next - now;
  if (ms < 1) ms = 1;
  tm_error err;
  d->armed = tm__timer_start(d->o.worker, (uint64_t)ms, on_timer, d, &d->timer, &err) == TM_OK;
  if (!d->armed) tm__log_error(d->o.log, TM_LOG_ERROR, "events cannot be watched", &err);
}

static void begin(tm_deliver *d, delivery *one) {
  one->next = d->all;
  d->all = one;
  d->count++;
  bool damaged = one->event.tenant[0] == '\0'; /* it is set aside, in the store that has it */
  if (damaged) memcpy(one->event.tenant, d->job.tenant, sizeof(one->event.tenant));
  if (one->event.body.ptr != NULL)
    post(one);
  else
    failed(one, damaged); /* its note says why */
}

static void on_landed(tm_message *m) {
  tm_deliver *d = (tm_deliver *)((char *)m - offsetof(tm_deliver, landed));
  if (d->stopped) return;
  uv_sem_wait(&d->has_landed);
  d->reading = false;
  if (d->job.status != TM_OK && !d->failing)
    tm__log_error(d->o.log, TM_LOG_WARNING, "events cannot be read", &d->job.error);
  d->failing = d->job.status != TM_OK;
  if (d->no_memory) tm__log(d->o.log, TM_LOG_WARNING, "no memory for an event: it waits", NULL);
  d->no_memory = false;
  while (d->taken != NULL) {
    delivery *one = d->taken;
    d->taken = one->next;
    begin(d, one);
  }
  if (ask_tenant(d)) return;
  if (d->again)
    look(d);
  else
    arm(d);
}

static void take(tm_deliver *d, const char *tenant) {
  d->reading = true;
  d->now = tm__clock_now(&d->o.clock);
  d->room = TM_DELIVER_MOST - d->count;
  d->job = (tm_store_job){.message.run = on_taken, .write = true, .work = take_work};
  (void)tm__copy(d->job.tenant, sizeof(d->job.tenant), tm__slice(tenant));
  tm__storage_run(d->o.storage, &d->job);
}

/* The one that waits longest, if there is one and room for its events. */
static bool ask_tenant(tm_deliver *d) {
  char tenant[sizeof(d->tenants[0])];
  if (d->tenant_count == 0 || d->count == TM_DELIVER_MOST) return false;
  memcpy(tenant, d->tenants[0], sizeof(tenant));
  memmove(d->tenants[0], d->tenants[1], --d->tenant_count * sizeof(d->tenants[0]));
  take(d, tenant);
  return true;
}

/* Asks the store of all and that in memory, then tenants. */
static void look(tm_deliver *d) {
  if (d->stopped || !d->begun) return;
  d->again = d->reading;
  if (d->reading) return;
  if (d->armed) (void)tm__timer_cancel(d->o.worker, d->timer);
  d->armed = false;
  take(d, "");
}

void tm__deliver_tenant(tm_deliver *d, const char *tenant) {
  if (d->stopped) return;
  want_tenant(d, tenant);
  look(d);
}

/* ---- life ---- */

static void on_start(tm_message *m) {
  tm_deliver *d = (tm_deliver *)((char *)m - offsetof(tm_deliver, start));
  d->begun = d->o.quiet_ms == 0;
  if (!d->stopped) arm(d);
}

static void on_poke(tm_message *m) {
  tm_deliver *d = (tm_deliver *)((char *)m - offsetof(tm_deliver, poke));
  __atomic_store_n(&d->poked, false, __ATOMIC_RELEASE);
  look(d);
}

void tm__deliver_hint(tm_deliver *d) {
  if (d != NULL && !__atomic_exchange_n(&d->poked, true, __ATOMIC_ACQ_REL))
    tm__worker_post(d->o.worker, &d->poke);
}

tm_status tm__deliver_new(tm_deliver **out, const tm_deliver_options *o, tm_error *err) {
  *out = NULL;
  tm_deliver *d = calloc(1, sizeof(*d));
  if (d == NULL || uv_sem_init(&d->has_landed, 0) != 0) {
    free(d);
    return tm__fail_memory(err, "the outbox");
  }
  d->o = *o;
  d->start.run = on_start;
  d->poke.run = on_poke;
  d->landed.run = on_landed;
  *out = d;
  tm__worker_post(o->worker, &d->start);
  return TM_OK;
}

void tm__deliver_stop(tm_deliver *d) {
  if (d == NULL || d->stopped) return;
  d->stopped = true;
  if (d->armed) (void)tm__timer_cancel(d->o.worker, d->timer);
  d->armed = false;
  if (d->reading) uv_sem_wait(&d->has_landed); /* one bounded piece of work each */
  for (delivery *one = d->all; one != NULL; one = one->next) {
    if (one->calling) (void)tm__http_cancel(d->o.client, one->call);
    one->calling = false;
    if (one->storing) uv_sem_wait(&d->has_landed);
  }
}

static void free_list(delivery *list) {
  while (list != NULL) {
    delivery *one = list;
    list = one->next;
    delivery_free(one);
  }
}

void tm__deliver_free(tm_deliver *d) {
  if (d == NULL) return;
  free_list(d->all);
  free_list(d->taken);
  uv_sem_destroy(&d->has_landed);
  free(d);
}
