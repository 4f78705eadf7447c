/* host.c - the life of a host: configuration, threads, start, stop. Decides the order in which the
 * parts come and go; what they do is theirs. */
#include "host.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* How often deadlines that other processes set are looked for; our own are known exactly. */
#ifndef TM_POLL_MS
#define TM_POLL_MS 1000
#endif

/* How often the clock is looked at for what is to be removed. */
enum { TICK_MS = 5000 };

/* Descriptors that connections leave to the store and to scripts. */
enum { RESERVED_DESCRIPTORS = 64 };

static void warn(void *ud, const char *text) {
  tm__log(ud, TM_LOG_WARNING, text, NULL);
}

static tm_log_level log_level(const char *name) {
  static const char *const names[] = {"debug", "info", "warning", "error"};
  for (int i = 0; i < 4; i++)
    if (strcmp(names[i], name) == 0) return (tm_log_level)i;
  return TM_LOG_INFO;
}

tm_status tm_host_new(tm_host **out, const tm_options *options, tm_error *err) {
  *out = NULL;
  if (options != NULL && options->size != sizeof(*options))
    return tm__fail(err, TM_EINVAL, "options.size",
                    "tm_options has %zu bytes, this library knows %zu: recompile the program",
                    options->size, sizeof(*options));
  tm_host *h = calloc(1, sizeof(*h));
  if (h == NULL) return tm__fail_memory(err, "host");
  if (uv_rwlock_init(&h->lock) != 0) {
    free(h);
    return tm__fail_memory(err, "host");
  }
  tm_options o = options != NULL ? *options : (tm_options)TM_OPTIONS_INIT;
  h->clock = (tm_clock){o.clock, o.clock_ud};
  h->log = (tm_log){.sink = o.log, .ud = o.log_ud, .level = TM_LOG_INFO, .clock = h->clock};
  tm__uuid7(h->id, tm__clock_now(&h->clock));
  tm_config_options co = {
      .file = o.config_file, .env_file = o.env_file, .set = o.set, .warn = warn, .ud = &h->log};
  tm_status s = tm__config_load(&h->config, &co, err);
  if (s == TM_OK) s = tm__host_open_keys(h, err);
  if (s == TM_OK && (h->script_config = tm__host_script_config(h->config, h->keys)) == NULL)
    s = tm__fail_memory(err, "configuration");
  if (s != TM_OK) {
    tm_host_free(h);
    return s;
  }
  h->keep = tm__host_retention(h->config);
  h->log.level = log_level(tm__config_text(h->config, "log.level"));
  h->log.json = strcmp(tm__config_text(h->config, "log.format"), "json") == 0;
  *out = h;
  return TM_OK;
}

tm_vm_options tm__host_vm_options(const tm_host *h) {
  const tm_config *c = h->config;
  return (tm_vm_options){
      .limits = {.memory = (size_t)tm__config_int(c, "limits.memory"),
                 .step_memory = (size_t)tm__config_int(c, "limits.step_memory"),
                 .cpu_slice_ms = tm__config_ms(c, "limits.cpu_slice"),
                 .load_ms = tm__config_ms(c, "limits.load_time"),
                 .operations = (size_t)tm__config_int(c, "limits.operations"),
                 .system_operations = (size_t)tm__config_int(c, "limits.system_operations")},
      .log = &h->log,
      .clock = h->clock,
      .config_json = h->script_config,
  };
}

/* ---- start ---- */

static tm_status open_storage(tm_host *h, tm_error *err) {
  tm_host_store where = {0};
  tm_status s = tm__host_store(&where, h, err);
  if (s == TM_OK) {
    const tm_storage_options o = {
        .backend = tm__slice(where.backend),
        .store = where.options,
        .isolated = tm__config_bool(h->config, "tenants.isolation"),
        .tenants_open = where.tenants_open,
        .on_word = where.words ? tm__host_word : NULL,
        .word_ud = h,
        .log = &h->log,
        .codec = h->codec,
    };
    s = tm__storage_open(&h->storage, &o, err);
  }
  tm__host_store_clear(&where);
  return s;
}

static void hint(void *ud, int64_t when) {
  tm_host *h = ud;
  tm__host_leaves(h);
  tm__scheduler_hint(h->scheduler, when);
}

/* Whose they are the store knows: where each tenant has one of its own, the scheduler finds it. */
static void emitted(void *ud) {
  tm_host *h = ud;
  tm__host_leaves(h);
  if (tm__storage_isolated(h->storage)) tm__scheduler_hint(h->scheduler, tm__clock_now(&h->clock));
  tm__deliver_hint(h->deliver);
}

static void deliver_for(void *ud, const char *tenant) {
  tm_host *h = ud;
  tm__deliver_tenant(h->deliver, tenant);
}

static size_t descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > INT_MAX) return INT_MAX;
  return (size_t)limit.rlim_cur;
}

/* Connections of a worker's outgoing calls: all workers together may have a quarter of them all. */
static size_t outgoing_limit(const tm_host *h) {
  size_t share = descriptor_limit() / 4 / h->worker_count;
  return share > 8 ? share : 8;
}

static tm_concurrency concurrency(const tm_config *c) {
  tm_concurrency is = TM_CONCURRENCY_QUEUE;
  tm_slice name = tm__slice(tm__config_text(c, "orchestrator.session_config.concurrency"));
  (void)tm__concurrency_parse(&is, name); /* the configuration was checked */
  return is;
}

static tm_quotas quotas(const tm_config *c) {
  return (tm_quotas){.session_steps = tm__config_int(
                         c, "orchestrator.session_config.quota_limits.max_steps_per_session"),
                     .turns_per_minute = tm__config_int(
                         c, "orchestrator.session_config.quota_limits.rate_limit_per_minute")};
}

static tm_status start_worker(tm_host *h, size_t index, tm_error *err) {
  tm_host_worker *w = &h->workers[index];
  char name[32];
  (void)snprintf(name, sizeof(name), "worker %zu", index);
  tm_status s = tm__worker_start(&w->worker, name, err);
  if (s == TM_OK) s = tm__http_client_new(&w->client, w->worker, outgoing_limit(h), err);
  if (s != TM_OK) return s;
  tm_vm_options vo = tm__host_vm_options(h);
  vo.worker = w->worker;
  vo.client = w->client;
  vo.registry = h->registry;
  if (tm__config_bool(h->config, "tenants.isolation"))
    vo.tenant_states = (size_t)tm__config_int(h->config, "tenants.open_states");
  s = tm__lua_new(&w->lua, &vo, err);
  if (s != TM_OK) return s;
  const tm_config *c = h->config;
  tm_journal_options jo = {
      .worker = w->worker,
      .storage = h->storage,
      .registry = h->registry,
      .log = &h->log,
      .clock = h->clock,
      .executor = tm__lua_executor(w->lua),
      .lease_ms = tm__config_ms(c, "server.lease"),
      .cache_bytes = (size_t)tm__config_int(c, "server.cache_size") / h->worker_count,
      .queue_limit = (size_t)tm__config_int(c, "server.queue_limit"),
      .concurrency = concurrency(c),
      .quotas = quotas(c),
      .rates = h->rates,
      .checkpoints = &h->keep.checkpoints,
      .hint = hint,
      .hint_ud = h,
      .emitted = emitted,
  };
  memcpy(jo.host_id, h->id, sizeof(jo.host_id));
  return tm__journal_new(&w->journal, &jo, err);
}

tm_host_worker *tm__host_worker(tm_host *h, const char *conversation_id) {
  uint32_t hash = 2166136261u; /* FNV-1a: the same owner for an id, whichever thread asks */
  for (const char *p = conversation_id; *p != '\0'; p++)
    hash = (hash ^ (uint8_t)*p) * 16777619u;
  return &h->workers[hash % h->worker_count];
}

static void wake_conversation(void *ud, const tm_head *due) {
  tm_host *h = ud;
  tm_request *r = tm__request_new(TM_REQUEST_WAKE);
  if (r == NULL) return; /* found again at the next look */
  memcpy(r->conversation, due->id, sizeof(r->conversation));
  memcpy(r->tenant, due->tenant, sizeof(r->tenant));
  tm__journal_submit(tm__host_worker(h, due->id)->journal, r);
}

/* No hot copy outlives what it is a copy of. */
static void forget_conversation(void *ud, const char *conversation) {
  tm_host *h = ud;
  tm_request *r = tm__request_new(TM_REQUEST_FORGET);
  if (r == NULL) return; /* it is worth nothing, and leaves with time */
  (void)tm__copy(r->conversation, sizeof(r->conversation), tm__slice(conversation));
  tm__journal_submit(tm__host_worker(h, conversation)->journal, r);
}

static tm_status start_janitor(tm_host *h, tm_error *err) {
  const tm_janitor_options o = {.worker = h->control,
                                .storage = h->storage,
                                .registry = h->registry,
                                .log = &h->log,
                                .clock = h->clock,
                                .keep = &h->keep,
                                .tick_ms = TICK_MS,
                                .purged = forget_conversation,
                                .ud = h};
  return tm__janitor_new(&h->janitor, &o, err);
}

static tm_status look_at_sessions(void *ud, const tm_store_access *a, const char *tenant,
                                  tm_error *err) {
  const tm_host *h = ud;
  return tm__janitor_sessions(h->janitor, a, tenant, err);
}

static tm_status start_scheduler(tm_host *h, tm_error *err) {
  const tm_scheduler_options o = {.worker = h->control,
                                  .storage = h->storage,
                                  .clock = h->clock,
                                  .log = &h->log,
                                  .poll_ms = TM_POLL_MS,
                                  .wake = wake_conversation,
                                  .sessions = look_at_sessions,
                                  .events = h->deliver != NULL ? deliver_for : NULL,
                                  .ud = h};
  return tm__scheduler_new(&h->scheduler, &o, err);
}

typedef struct recovery {
  tm_store_job job;
  uv_sem_t done;
  int64_t now, taken;
} recovery;

static tm_status recover_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  recovery *r = (recovery *)(void *)job;
  return a->backend->recover(a->conn, r->now, &r->taken, err);
}

static void recover_done(tm_message *m) {
  uv_sem_post(&((recovery *)(void *)m)->done);
}

/* Turns that an earlier process left unfinished become due at once; where that cannot be written,
 * when their leases run out. */
static tm_status recover(tm_host *h, tm_error *err) {
  recovery r = {.job = {.write = true, .work = recover_work, .message.run = recover_done},
                .now = tm__clock_now(&h->clock)};
  if (uv_sem_init(&r.done, 0) != 0) return tm__fail_memory(err, "semaphore");
  tm__storage_run(h->storage, &r.job);
  uv_sem_wait(&r.done);
  uv_sem_destroy(&r.done);
  if (r.job.status != TM_OK) {
    tm__log_error(&h->log, TM_LOG_WARNING, "unfinished turns are taken up later", &r.job.error);
  } else if (r.taken > 0) {
    char count[24];
    (void)snprintf(count, sizeof(count), "%lld", (long long)r.taken);
    tm__log(&h->log, TM_LOG_INFO, "taking up unfinished turns", "count", count, NULL);
  }
  return TM_OK;
}

static size_t worker_count(const tm_host *h) {
  int64_t n = tm__config_int(h->config, "server.workers");
  return n > 0 ? (size_t)n : (size_t)uv_available_parallelism();
}

/* There are no workers yet: each makes a state of a version when a turn first needs it. */
static tm_status load_scripts(tm_host *h, tm_error *err) {
  tm_scripts scripts;
  tm_buf report = {0};
  tm_status s = tm__scripts_load(&scripts, h, err);
  if (s == TM_OK) s = tm__scripts_switch(&scripts, h, &report, err);
  tm__buf_free(&report);
  return s;
}

static tm_status start_parts(tm_host *h, tm_error *err) {
  tm_status s = open_storage(h, err);
  if (s != TM_OK) return s;
  h->registry = tm__registry_new();
  h->rates = tm__rates_new();
  size_t count = worker_count(h);
  h->workers = calloc(count, sizeof(*h->workers));
  if (h->registry == NULL || h->rates == NULL || h->workers == NULL)
    return tm__fail_memory(err, "workers");
  h->worker_count = count;
  s = load_scripts(h, err);
  if (s == TM_OK) s = tm__worker_start(&h->control, "control", err);
  if (s == TM_OK) s = tm__reload_new(&h->reload, h, err);
  if (s == TM_OK) s = tm__host_start_outbox(h, TM_POLL_MS, err);
  for (size_t i = 0; s == TM_OK && i < h->worker_count; i++)
    s = start_worker(h, i, err);
  if (s == TM_OK) s = recover(h, err);
  if (s == TM_OK) s = start_janitor(h, err);
  if (s == TM_OK) /* last: it looks for due conversations at once, and wakes them on the workers */
    s = start_scheduler(h, err);
  const tm_reseal_options ro = {.storage = h->storage, .codec = h->codec, .log = &h->log};
  if (s == TM_OK) s = tm__reseal_start(&h->reseal, &ro, err);
  if (s == TM_OK) __atomic_store_n(&h->hears, true, __ATOMIC_RELEASE);
  return s;
}

tm_status tm_host_start(tm_host *h, tm_error *err) {
  if (h->state != TM_HOST_NEW)
    return tm__fail(err, TM_EINVAL, "host.started", "the host was started before: make a new one");
  tm_status s = start_parts(h, err);
  uv_rwlock_wrlock(&h->lock);
  h->state = TM_HOST_RUNNING;
  uv_rwlock_wrunlock(&h->lock);
  if (s != TM_OK) tm_host_stop(h, 0);
  return s;
}

static bool is_ready(void *ud, const char **why_not) {
  tm_host *h = ud;
  uv_rwlock_rdlock(&h->lock);
  bool running = h->state == TM_HOST_RUNNING;
  uv_rwlock_rdunlock(&h->lock);
  *why_not = !running ? "the host is stopping" : "the store cannot be read or written";
  return running && tm__storage_healthy(h->storage);
}

/* What outgoing calls, the store and the scripts leave of the descriptors. */
static int connection_limit(const tm_host *h) {
  int wanted = (int)tm__config_int(h->config, "server.connection_limit");
  size_t descriptors = descriptor_limit(), room = descriptors / 2;
  size_t others = RESERVED_DESCRIPTORS + outgoing_limit(h) * h->worker_count;
  if (others < descriptors - room) room = descriptors - others;
  if ((size_t)wanted <= room) return wanted;
  char allowed[24], possible[24];
  (void)snprintf(allowed, sizeof(allowed), "%zu", descriptors);
  (void)snprintf(possible, sizeof(possible), "%zu", room);
  tm__log(&h->log, TM_LOG_WARNING,
          "server.connection_limit is more than the process may have open: raise its limit of "
          "descriptors (ulimit -n, LimitNOFILE=)",
          "descriptors", allowed, "connections", possible, NULL);
  return (int)room;
}

tm_status tm_host_listen(tm_host *h, const char *address, char *url_out, size_t url_size,
                         tm_error *err) {
  if (h->state != TM_HOST_RUNNING || h->api != NULL)
    return tm__fail(err, TM_EINVAL, "host.listen", "listen once, after tm_host_start");
  const tm_config *c = h->config;
  tm_api_options o = {
      .host = h,
      .log = &h->log,
      .address = address != NULL ? address : tm__config_text(c, "server.listen"),
      .body_limit = (size_t)tm__config_int(c, "server.body_limit"),
      .memory_limit = (size_t)tm__config_int(c, "server.memory_limit"),
      .connection_limit = connection_limit(h),
      .idle_timeout_s = (int)(tm__config_ms(c, "server.idle_timeout") / 1000),
      .request_timeout_s = (int)(tm__config_ms(c, "server.request_timeout") / 1000),
      .ready = is_ready,
      .ud = h,
  };
  char url[300];
  tm_status s = tm__api_start(&h->api, &o, err);
  if (s != TM_OK) return s;
  size_t host_length = (size_t)(strrchr(o.address, ':') - o.address);
  (void)snprintf(url, sizeof(url), "http://%.*s:%u", (int)host_length, o.address,
                 (unsigned)tm__api_port(h->api));
  tm__server_listens(h, url);
  if (url_out != NULL) (void)snprintf(url_out, url_size, "%s", url);
  return TM_OK;
}

void tm_host_wake(tm_host *h) {
  if (!tm__host_enter(h, NULL)) return;
  tm__scheduler_poke(h->scheduler);
  tm__janitor_poke(h->janitor);
  tm__deliver_hint(h->deliver);
  tm__host_leave(h);
}

/* ---- stop ---- */

static void step_done(void *ud) {
  tm_stop_step *s = ud;
  uv_sem_post(s->done);
}

static void do_drain(tm_message *m) {
  tm_stop_step *s = (tm_stop_step *)(void *)m;
  tm__journal_drain(s->worker->journal, step_done, s);
}

static void do_abandon(tm_message *m) {
  tm_stop_step *s = (tm_stop_step *)(void *)m;
  tm__journal_abandon(s->worker->journal, step_done, s);
}

static void do_close(tm_message *m) {
  tm_stop_step *s = (tm_stop_step *)(void *)m;
  tm_host_worker *w = s->worker;
  if (w->client != NULL) s->left += tm__http_calls(w->client);
  if (w->lua != NULL) s->left += tm__lua_turns(w->lua);
  tm__lua_free(w->lua);
  w->lua = NULL; /* a reload may still ask for it */
  tm__http_client_close(w->client);
  step_done(s);
}

static void do_stop_control(tm_message *m) {
  tm_stop_step *s = (tm_stop_step *)(void *)m;
  if (s->host->scheduler != NULL) tm__scheduler_stop(s->host->scheduler);
  if (s->host->janitor != NULL) tm__janitor_stop(s->host->janitor);
  tm__deliver_stop(s->host->deliver);
  tm__http_client_close(s->host->webhooks);
  tm__watch_stop(s->host->watch);
  if (s->host->reload != NULL)
    tm__reload_stop(s->host->reload, step_done, s);
  else
    step_done(s);
}

/* Posts the stage's step to each worker that has a journal (or, for closing, to each worker); waits
 * at most `timeout_ms`, < 0: for ever. */
static void on_workers(tm_host *h, tm_stop_stage stage, uv_sem_t *done, int timeout_ms) {
  static void (*const steps[TM_STOP_STAGES])(tm_message *) = {do_drain, do_abandon, do_close};
  size_t posted = 0;
  for (size_t i = 0; h->workers != NULL && i < h->worker_count; i++) {
    tm_host_worker *w = &h->workers[i];
    if (w->worker == NULL || (stage != TM_STOP_CLOSE && w->journal == NULL)) continue;
    w->stop[stage] =
        (tm_stop_step){.message.run = steps[stage], .host = h, .worker = w, .done = done};
    tm__worker_post(w->worker, &w->stop[stage].message);
    posted++;
  }
  int64_t end = tm__clock_monotonic_us() + (int64_t)timeout_ms * 1000;
  while (posted > 0) {
    if (timeout_ms < 0) {
      uv_sem_wait(done);
      posted--;
    } else if (uv_sem_trywait(done) == 0) {
      posted--;
    } else if (tm__clock_monotonic_us() >= end) {
      return;
    } else {
      uv_sleep(2);
    }
  }
}

static void stop_control(tm_host *h) {
  uv_sem_t done;
  if (h->control == NULL || uv_sem_init(&done, 0) != 0) return;
  tm_stop_step step = {.message.run = do_stop_control, .host = h, .done = &done};
  tm__worker_post(h->control, &step.message);
  uv_sem_wait(&done);
  uv_sem_destroy(&done);
}

/* Returns how many timers and handles nobody closed. */
static size_t free_parts(tm_host *h) {
  size_t left = 0;
  for (size_t i = 0; h->workers != NULL && i < h->worker_count; i++) {
    left += tm__worker_stop(h->workers[i].worker);
    tm__journal_free(h->workers[i].journal);
  }
  left += tm__worker_stop(h->control);
  tm__scheduler_free(h->scheduler);
  tm__janitor_free(h->janitor);
  tm__deliver_free(h->deliver);
  tm__reload_free(h->reload);
  tm__watch_free(h->watch);
  tm__registry_free(h->registry);
  tm__rates_free(h->rates);
  free(h->workers);
  h->workers = NULL;
  h->worker_count = 0;
  h->control = NULL;
  h->scheduler = NULL;
  h->janitor = NULL;
  h->deliver = NULL;
  h->webhooks = NULL;
  h->reload = NULL;
  h->watch = NULL;
  h->registry = NULL;
  h->rates = NULL;
  return left;
}

static void log_left(const tm_host *h, size_t operations, size_t handles) {
  char turns[24], open[24];
  if (operations + handles == 0) return;
  (void)snprintf(turns, sizeof(turns), "%zu", operations);
  (void)snprintf(open, sizeof(open), "%zu", handles);
  tm__log(&h->log, TM_LOG_ERROR, "something was left behind: a fault in the host, report it",
          "operations", turns, "handles", open, NULL);
}

/* Order: no new work; running turns end, or nobody waits for the store any more and they are given
 * up; their answers leave; the store closes; then the threads. */
static void stop_parts(tm_host *h, int timeout_ms) {
  uv_sem_t done[TM_STOP_STAGES];
  for (int i = 0; i < TM_STOP_STAGES; i++)
    (void)uv_sem_init(&done[i], 0);
  if (h->api != NULL) tm__api_quiesce(h->api);
  tm__server_ends(h);
  on_workers(h, TM_STOP_DRAIN, &done[TM_STOP_DRAIN], timeout_ms);
  if (h->storage != NULL) tm__storage_interrupt(h->storage);
  stop_control(h);
  tm__reseal_stop(h->reseal);
  h->reseal = NULL;
  on_workers(h, TM_STOP_ABANDON, &done[TM_STOP_ABANDON], -1);
  tm__api_stop(h->api);
  h->api = NULL;
  tm__host_last_word(h);
  tm__storage_close(h->storage);
  h->storage = NULL;
  on_workers(h, TM_STOP_CLOSE, &done[TM_STOP_CLOSE], -1);
  size_t operations = 0;
  for (size_t i = 0; h->workers != NULL && i < h->worker_count; i++)
    operations += h->workers[i].stop[TM_STOP_CLOSE].left;
  log_left(h, operations, free_parts(h));
  for (int i = 0; i < TM_STOP_STAGES; i++)
    uv_sem_destroy(&done[i]);
}

void tm_host_stop(tm_host *h, int timeout_ms) {
  if (h == NULL) return;
  uv_rwlock_wrlock(&h->lock);
  bool stop = h->state == TM_HOST_RUNNING;
  h->state = stop ? TM_HOST_STOPPING : h->state;
  uv_rwlock_wrunlock(&h->lock);
  if (!stop) return;
  tm__log(&h->log, TM_LOG_INFO, "stopping: running turns may finish", NULL);
  stop_parts(h, timeout_ms);
  tm__log(&h->log, TM_LOG_INFO, "stopped", NULL);
  uv_rwlock_wrlock(&h->lock);
  h->state = TM_HOST_STOPPED;
  uv_rwlock_wrunlock(&h->lock);
}

void tm_host_free(tm_host *h) {
  if (h == NULL) return;
  tm_host_stop(h, 0);
  tm__codec_free(h->codec);
  tm__keyring_free(h->keys);
  tm__config_free(h->config);
  free(h->script_config);
  uv_rwlock_destroy(&h->lock);
  free(h);
}

bool tm__host_enter(tm_host *h, tm_error *err) {
  uv_rwlock_rdlock(&h->lock);
  if (h->state == TM_HOST_RUNNING) return true;
  const char *what = h->state == TM_HOST_NEW ? "has not been started" : "is stopping";
  uv_rwlock_rdunlock(&h->lock);
  (void)tm__fail(err, TM_EUNAVAILABLE, "host.stopping", "the host %s: try again later", what);
  if (err != NULL) err->retry_after_ms = 1000;
  return false;
}

void tm__host_leave(tm_host *h) {
  uv_rwlock_rdunlock(&h->lock);
}

const char *tm_version(void) {
  return TM_VERSION;
}
