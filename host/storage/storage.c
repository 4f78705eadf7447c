/* storage.c - the threads that block, so that nobody else does. A writer takes everything that
 * waits into one transaction for each store; readers run one job at a time each. What is for one
 * conversation is always done by the same writer, and so is what is for one store unless its
 * backend gains from several. */
#include "storage/storage.h"

#include <stdlib.h>
#include <string.h>

#include "storage/lane.h"
#include "storage/stores.h"

#define READERS        2
#define WRITERS_MAX    16
#define TENANT_WRITERS 4                   /* where each tenant has a store */
#define GROUP_MAX      256                 /* commits in one transaction */
#define MEMORY_BYTES   ((size_t)256 << 20) /* of conversations that live in memory only */
#define PROBE_MS       500                 /* between attempts to write while writing fails */

typedef struct store_thread {
  struct tm_storage *storage;
  size_t number; /* writers first */
  tm_store_role role;
  tm_lane *lane;
  tm_store_conn *memory_conn;
  uv_thread_t thread;
  bool started;
  int64_t probed_us; /* of a writer: when it last tried whether the store can be written */
} store_thread;

struct tm_storage {
  const tm_store_backend *backend, *memory_backend;
  tm_stores *stores;
  tm_store *memory_store;
  const tm_log *log;
  tm_codec *codec; /* NULL: bodies are kept as they are */
  bool isolated;
  size_t writers;
  tm_lane writes[WRITERS_MAX], reads;
  store_thread threads[WRITERS_MAX + READERS];
  bool reads_fail, writes_fail; /* atomic: what the newest ones did */
  tm_damage damage;
  void (*on_word)(void *ud, const char *word);
  void *word_ud;
};

/* ---- what a thread works with ---- */

static void answer(tm_worker *reply_to, tm_message *m) {
  if (reply_to != NULL) {
    tm__worker_post(reply_to, m);
  } else {
    m->run(m);
  }
}

static tm_status open_access(store_thread *t, const char *tenant, tm_store_access *a,
                             tm_stores_use *use, tm_error *err) {
  tm_storage *s = t->storage;
  *a = (tm_store_access){.backend = s->backend,
                         .memory_backend = s->memory_backend,
                         .memory_conn = t->memory_conn,
                         .codec = s->codec,
                         .damage = &s->damage};
  tm_status status = tm__stores_common(s->stores, t->number, t->role, &a->common, err);
  if (status != TM_OK) return status;
  status = tm__stores_enter(s->stores, t->number, t->role, tenant, use, err);
  a->conn = use->conn;
  return status;
}

/* Reading and writing fail and are mended each on its own: a full disk is still readable. One
 * damaged record was read as well as any other. */
static bool says_store_fails(tm_status status, const tm_error *err) {
  if (status != TM_OK && tm__codec_is_of_record(err)) return false;
  if (status == TM_ECORRUPT) return true;
  return status == TM_EUNAVAILABLE || status == TM_EIO;
}

static void note_health(tm_storage *s, bool write, tm_status status, const tm_error *err) {
  bool *which = write ? &s->writes_fail : &s->reads_fail;
  bool fails = says_store_fails(status, err);
  if (__atomic_exchange_n(which, fails, __ATOMIC_RELAXED) == fails) return;
  if (fails) {
    tm__log_error(s->log, TM_LOG_ERROR,
                  write ? "the store cannot be written" : "the store cannot be read", err);
  } else {
    tm__log(s->log, TM_LOG_INFO,
            write ? "the store can be written again" : "the store can be read again", NULL);
  }
}

/* The host is as ready as the store of all is; a tenant's own store is that tenant's trouble.
 * `shown`: where it went well, the store can be written, or read. */
static void note_result(tm_storage *s, const char *tenant, bool write, bool shown, tm_status status,
                        const tm_error *err) {
  bool fails = says_store_fails(status, err);
  if (!s->isolated || tenant[0] == '\0') {
    if (fails || shown) note_health(s, write, status, err);
  } else if (fails) {
    tm__log_error(s->log, TM_LOG_ERROR, "the store of a tenant fails", err);
  }
}

/* ---- commits ---- */

static void set_session_limit(tm_commit_job *job) {
  (void)tm__fail(
      &job->error, TM_ELIMIT, "session.limit",
      "too many sessions are open (max_concurrent_sessions %lld, max_sessions_per_tenant "
      "%lld; 0 is no limit); go on in a session that is open, or try again later",
      (long long)job->commit.sessions_max, (long long)job->commit.tenant_sessions_max);
  job->error.retry_after_ms = 10000;
}

static void set_error(tm_commit_job *job, tm_status group, const tm_error *err) {
  tm_status status = group == TM_OK ? job->commit.status : group;
  const char *id = job->commit.head.id;
  job->commit.status = status;
  if (status == TM_OK) return;
  if (group != TM_OK || err->status == status) {
    job->error = *err;
  } else if (status == TM_ECONFLICT) {
    (void)tm__fail(&job->error, status, "store.conflict",
                   "conversation %s was changed by another process meanwhile", id);
  } else if (status == TM_ELIMIT &&
             (job->commit.sessions_max > 0 || job->commit.tenant_sessions_max > 0)) {
    set_session_limit(job);
  } else if (status == TM_ELIMIT) {
    (void)tm__fail(&job->error, status, "store.no_room",
                   "there is no room for another conversation in memory until one of those that "
                   "live there has ended; try again later");
    job->error.retry_after_ms = 1000;
  } else if (status == TM_ETOOLARGE) {
    (void)tm__fail(&job->error, status, "store.too_large",
                   "a row of conversation %s has %zu bytes, more than a store keeps; let the steps "
                   "of a turn return less",
                   id, job->commit.row->body.len);
  } else {
    (void)tm__fail(&job->error, status, "store.refused",
                   "the store refused a commit of conversation %s: %s", id, tm_status_name(status));
  }
  (void)tm__copy(job->error.conversation_id, sizeof(job->error.conversation_id), tm__slice(id));
}

static int64_t earlier(int64_t a, int64_t b) {
  return a == 0 || (b > 0 && b < a) ? b : a;
}

/* The earliest deadline among what is committed, of a conversation, a session or an event; 0: none.
 */
static int64_t earliest(tm_commit *const *items, size_t count) {
  int64_t min = 0;
  for (size_t i = 0; i < count; i++) {
    const tm_session *session = items[i]->session;
    min = earlier(min, items[i]->head.wake_at);
    if (session != NULL) min = earlier(min, session->look_at);
    if (items[i]->event_count > 0) min = earlier(min, items[i]->events[0].created);
  }
  return min;
}

static tm_status announce(const tm_store_access *a, const char *tenant, int64_t wake_at,
                          tm_error *err) {
  if (wake_at == 0) return TM_OK;
  return a->backend->tenant_wake(a->common, tm__slice(tenant), -1, wake_at, err);
}

/* A tenant's deadlines are found through the store of all, which knows of one before it is
 * committed, and is told again afterwards: who looked in between did not see it, and may have put
 * off the next look (scheduler.c). Telling it what it knows writes nothing. */
static tm_status commit_tenant(store_thread *t, const tm_store_access *a, const tm_stores_use *use,
                               tm_commit *const *items, size_t count, tm_error *err) {
  const char *tenant = items[0]->head.tenant;
  int64_t wake_at = earliest(items, count);
  tm_error late;
  tm_status status = tm__stores_enlist(t->storage->stores, t->number, use, err);
  if (status == TM_OK) status = announce(a, tenant, wake_at, err);
  if (status == TM_OK) status = a->backend->commit(a->conn, items, count, err);
  if (status == TM_OK && announce(a, tenant, wake_at, &late) != TM_OK) {
    tm__log_error(t->storage->log, TM_LOG_WARNING, "a deadline may be seen late", &late);
  }
  return status;
}

/* What a backend says of one item is for that item's client alone: where several were refused
 * alike, nobody knows whose it is, and it may name another tenant's conversation. */
static void keep_for_one(tm_error *err, tm_commit *const *items, size_t count) {
  size_t alike = 0;
  for (size_t i = 0; i < count; i++) {
    alike += items[i]->status == err->status;
  }
  if (alike != 1) *err = (tm_error){0};
}

static bool wrote_any(tm_commit *const *items, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (items[i]->status == TM_OK) return true;
  }
  return false;
}

/* One transaction of jobs that are for the same store. */
static void commit_group(store_thread *t, tm_commit_job *const *jobs, size_t count) {
  tm_commit *items[GROUP_MAX];
  for (size_t i = 0; i < count; i++) {
    items[i] = &jobs[i]->commit;
  }
  tm_store_access a;
  tm_stores_use use = {0};
  tm_error err = {0};
  const char *tenant = t->storage->isolated ? jobs[0]->commit.head.tenant : "";
  tm_status status = TM_OK;
  if (jobs[0]->in_memory) {
    status = t->storage->memory_backend->commit(t->memory_conn, items, count, &err);
  } else {
    status = open_access(t, tenant, &a, &use, &err);
    if (status == TM_OK) {
      status = use.tenant != NULL ? commit_tenant(t, &a, &use, items, count, &err)
                                  : a.backend->commit(a.conn, items, count, &err);
      tm__stores_leave(t->storage->stores, &use);
    }
    bool wrote = status == TM_OK && wrote_any(items, count);
    note_result(t->storage, tenant, true, wrote, status, &err);
  }
  if (status == TM_OK) keep_for_one(&err, items, count);
  for (size_t i = 0; i < count; i++) {
    set_error(jobs[i], status, &err);
  }
}

static void end_commit(tm_commit_job *job) {
  tm__encoding_end(&job->encoding, &job->commit);
  answer(job->reply_to, &job->message);
}

static bool same_store(const tm_storage *s, const tm_commit_job *a, const tm_commit_job *b) {
  if (a->in_memory != b->in_memory || a->refused != b->refused) return false;
  return a->in_memory || !s->isolated || strcmp(a->commit.head.tenant, b->commit.head.tenant) == 0;
}

/* Groups them by store without changing the order within one. */
static void run_commits(store_thread *t, tm_commit_job **jobs, size_t count) {
  tm_commit_job *group[GROUP_MAX];
  for (size_t left = count; left > 0;) {
    size_t n = 0, kept = 0;
    tm_commit_job *first = jobs[0];
    for (size_t i = 0; i < left; i++) {
      if (same_store(t->storage, first, jobs[i])) {
        group[n++] = jobs[i];
      } else {
        jobs[kept++] = jobs[i];
      }
    }
    left = kept;
    if (!first->refused) commit_group(t, group, n);
    for (size_t i = 0; i < n; i++) {
      end_commit(group[i]);
    }
  }
}

/* ---- jobs ---- */

static void run_job(store_thread *t, tm_store_job *job) {
  tm_store_access a;
  tm_stores_use use = {0};
  job->error = (tm_error){0};
  job->status = open_access(t, job->tenant, &a, &use, &job->error);
  if (job->status == TM_OK) {
    job->status = job->work(job, &a, &job->error);
    tm__stores_leave(t->storage->stores, &use);
  }
  /* one that may write need not have */
  note_result(t->storage, job->tenant, job->write, !job->write, job->status, &job->error);
  answer(job->reply_to, &job->message);
}

static tm_commit_job *commit_of(tm_message *m) {
  return (tm_commit_job *)((char *)m - offsetof(tm_commit_job, message));
}

static tm_store_job *job_of(tm_message *m) {
  return (tm_store_job *)((char *)m - offsetof(tm_store_job, message));
}

static bool writes_fail(tm_storage *s) {
  return __atomic_load_n(&s->writes_fail, __ATOMIC_RELAXED);
}

/* Who is told that the host is not ready sends nothing that could show that it is again; and what
 * goes on nevertheless need not write to the store of all. */
static void probe(store_thread *t) {
  int64_t now = tm__clock_monotonic_us();
  if (!writes_fail(t->storage) || now - t->probed_us < PROBE_MS * INT64_C(1000)) return;
  t->probed_us = now;
  tm_store_access a;
  tm_stores_use use = {0};
  tm_error err;
  tm_status status = open_access(t, "", &a, &use, &err);
  if (status == TM_OK) status = a.backend->probe(a.conn, &err);
  note_health(t->storage, true, status, &err);
}

static void writer_main(void *arg) {
  store_thread *t = arg;
  tm_lane *l = t->lane;
  tm_commit_job *group[GROUP_MAX];
  uv_mutex_lock(&l->lock);
  while (tm__lane_wait(l, writes_fail(t->storage) ? PROBE_MS : 0)) {
    size_t n = 0;
    while (n < GROUP_MAX && l->commits.first != NULL) {
      group[n++] = commit_of(tm__lane_pop(&l->commits));
    }
    tm_message *job = tm__lane_pop(&l->jobs);
    l->busy = true;
    uv_mutex_unlock(&l->lock);
    probe(t);
    if (job != NULL) run_job(t, job_of(job)); /* may be the script that a commit's version means */
    if (n > 0) run_commits(t, group, n);
    uv_mutex_lock(&l->lock);
    l->busy = false;
    l->away = (tm_error){0};
  }
  uv_mutex_unlock(&l->lock);
}

static void reader_main(void *arg) {
  store_thread *t = arg;
  tm_lane *l = t->lane;
  uv_mutex_lock(&l->lock);
  while (tm__lane_wait(l, 0)) {
    tm_message *job = tm__lane_pop(&l->jobs);
    uv_mutex_unlock(&l->lock);
    run_job(t, job_of(job));
    uv_mutex_lock(&l->lock);
  }
  uv_mutex_unlock(&l->lock);
}

/* ---- opening and closing ---- */

static size_t thread_count(const tm_storage *s) {
  return s->writers + READERS;
}

static tm_status connect_thread(tm_storage *s, size_t number, tm_error *err) {
  store_thread *t = &s->threads[number];
  bool writes = number < s->writers;
  t->storage = s;
  t->number = number;
  t->role = writes ? TM_STORE_WRITER : TM_STORE_READER;
  t->lane = writes ? &s->writes[number] : &s->reads;
  tm_store_conn *common;
  tm_status status = tm__stores_common(s->stores, number, t->role, &common, err);
  if (status != TM_OK) return status;
  return s->memory_backend->connect(&t->memory_conn, s->memory_store, t->role, err);
}

static tm_status start_thread(store_thread *t, tm_error *err) {
  int failed =
      uv_thread_create(&t->thread, t->role == TM_STORE_WRITER ? writer_main : reader_main, t);
  t->started = failed == 0;
  if (failed == 0) return TM_OK;
  return tm__fail(err, TM_EUNAVAILABLE, "store.start", "start a thread of the store: %s",
                  uv_strerror(failed));
}

static int64_t system_now(void *ud) {
  (void)ud;
  return tm__clock_now(&(const tm_clock){0});
}

/* ---- a server that is away ---- */

static void refuse_commit(tm_commit_job *job, const tm_error *why) {
  if (!job->refused) set_error(job, why->status, why);
  end_commit(job);
}

static void refuse_job(tm_store_job *job, const tm_error *why) {
  job->status = why->status;
  job->error = *why;
  answer(job->reply_to, &job->message);
}

/* A server goes away and comes back without anybody asking. A writer in whose hands a commit is
 * then waits for it until it knows what came of that; those behind it are not in doubt and do not.
 * Jobs that nobody outside asked for do. */
static void on_health(void *ud, const tm_error *err) {
  tm_storage *s = ud;
  for (size_t i = 0; i < s->writers; i++) {
    tm_lane_queue commits = {0}, jobs = {0};
    tm_lane *l = &s->writes[i];
    tm__lane_note(l, err, &commits, &jobs);
    for (tm_message *m; (m = tm__lane_pop(&commits)) != NULL;)
      refuse_commit(commit_of(m), err);
    for (tm_message *m; (m = tm__lane_pop(&jobs)) != NULL;) {
      if (job_of(m)->reply_to != NULL)
        refuse_job(job_of(m), err);
      else
        (void)tm__lane_add(l, &l->jobs, m, NULL);
    }
  }
  note_health(s, true, err != NULL ? TM_EUNAVAILABLE : TM_OK, err);
}

static void on_word(void *ud, const char *word) {
  const tm_storage *s = ud;
  s->on_word(s->word_ud, word);
}

static void on_deaf(void *ud, const tm_error *err) {
  const tm_storage *s = ud;
  tm__log_error(s->log, TM_LOG_INFO,
                "hosts are not woken by each other, each looks once a second for itself", err);
}

static tm_status open_stores(tm_storage *s, const tm_storage_options *o, tm_error *err) {
  tm_store_options main = o->store;
  if (main.now_ms == NULL) main.now_ms = system_now;
  if (main.memory_bytes == 0) main.memory_bytes = MEMORY_BYTES;
  main.on_health = on_health;
  main.on_word = o->on_word != NULL ? on_word : NULL;
  main.on_deaf = on_deaf;
  main.event_ud = s;
  const tm_stores_options stores = {.backend = s->backend,
                                    .store = &main,
                                    .isolated = s->isolated,
                                    .open_limit = o->tenants_open,
                                    .threads = thread_count(s)};
  tm_status status = tm__stores_open(&s->stores, &stores, err);
  if (status != TM_OK) return status;
  tm_store_options in_memory = main;
  in_memory.location = "";
  return s->memory_backend->open(&s->memory_store, &in_memory, err);
}

/* A backup that is served is one no longer. */
static tm_status forget_backup(tm_storage *s, tm_error *err) {
  tm_store_conn *c;
  tm_status status = tm__stores_common(s->stores, 0, TM_STORE_WRITER, &c, err);
  return status == TM_OK ? tm__store_no_backup(s->backend, c, err) : status;
}

static size_t writer_count(const tm_storage *s) {
  size_t count = (size_t)s->backend->writers;
  if (s->isolated && count < TENANT_WRITERS) count = TENANT_WRITERS;
  return count < WRITERS_MAX ? count : WRITERS_MAX;
}

static void on_finding(void *ud, tm_finding level, const char *text) {
  const tm_storage *s = ud;
  if (level == TM_FINDING_INFO) return;
  tm__log(s->log, level == TM_FINDING_ERROR ? TM_LOG_ERROR : TM_LOG_WARNING, "the store is unsafe",
          "finding", text, NULL);
}

static tm_status inspect(tm_storage *s, tm_error *err) {
  tm_store_conn *c;
  tm_status status = tm__stores_common(s->stores, 0, TM_STORE_WRITER, &c, err);
  return status == TM_OK ? s->backend->inspect(c, false, on_finding, s, err) : status;
}

static tm_status start(tm_storage *s, const tm_storage_options *o, tm_error *err) {
  tm_status status = tm__lane_init(&s->reads, err);
  for (size_t i = 0; status == TM_OK && i < s->writers; i++) {
    status = tm__lane_init(&s->writes[i], err);
  }
  if (status == TM_OK) status = open_stores(s, o, err);
  for (size_t i = 0; status == TM_OK && i < thread_count(s); i++) {
    status = connect_thread(s, i, err);
  }
  if (status == TM_OK) status = tm__stores_check_isolation(s->stores, err);
  if (status == TM_OK) status = inspect(s, err);
  if (status == TM_OK) status = forget_backup(s, err);
  for (size_t i = 0; status == TM_OK && i < thread_count(s); i++) {
    status = start_thread(&s->threads[i], err);
  }
  return status;
}

tm_status tm__storage_open(tm_storage **out, const tm_storage_options *options, tm_error *err) {
  *out = NULL;
  tm_slice scheme = options->backend;
  const tm_store_backend *b = tm__store_backend(scheme);
  const tm_store_backend *memory = tm__store_backend(TM_S("memory"));
  if (b == NULL || memory == NULL) {
    return tm__fail(err, TM_EUNSUPPORTED, "store.unknown",
                    "there is no backend \"%.*s\" in this build; set workflow_persistence.backend",
                    (int)(scheme.len < 64 ? scheme.len : 64), scheme.ptr);
  }
  tm_storage *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  s->backend = b;
  s->memory_backend = memory;
  s->log = s->damage.log = options->log;
  s->codec = options->codec;
  s->isolated = options->isolated;
  s->on_word = options->on_word;
  s->word_ud = options->word_ud;
  s->writers = writer_count(s);
  tm_status status = start(s, options, err);
  if (status == TM_OK) {
    *out = s;
  } else {
    tm__storage_close(s);
  }
  return status;
}

void tm__storage_interrupt(tm_storage *s) {
  tm__stores_interrupt(s->stores);
}

void tm__storage_close(tm_storage *s) {
  if (s == NULL) return;
  if (s->stores != NULL) tm__stores_interrupt(s->stores);
  tm__lane_close(&s->reads);
  for (size_t i = 0; i < s->writers; i++) {
    tm__lane_close(&s->writes[i]);
  }
  for (size_t i = 0; i < thread_count(s); i++) {
    if (s->threads[i].started) (void)uv_thread_join(&s->threads[i].thread);
    s->memory_backend->disconnect(s->threads[i].memory_conn);
  }
  tm__stores_close(s->stores);
  s->memory_backend->close(s->memory_store);
  tm__lane_deinit(&s->reads);
  for (size_t i = 0; i < s->writers; i++) {
    tm__lane_deinit(&s->writes[i]);
  }
  free(s);
}

/* ---- the doors ---- */

bool tm__storage_healthy(tm_storage *s) {
  return !__atomic_load_n(&s->reads_fail, __ATOMIC_RELAXED) &&
         !__atomic_load_n(&s->writes_fail, __ATOMIC_RELAXED);
}

bool tm__storage_durable(const tm_storage *s, bool in_memory) {
  return !in_memory && s->backend->durable;
}

bool tm__storage_isolated(const tm_storage *s) {
  return s->isolated;
}

bool tm__storage_shared(const tm_storage *s) {
  return s->backend->shared;
}

void tm__storage_tell(tm_storage *s, const char *word) {
  tm__stores_tell(s->stores, word);
}

static tm_lane *lane_for(tm_storage *s, const char *tenant, const char *conversation) {
  tm_slice by[] = {tm__slice(s->isolated ? tenant : "")};
  if (s->backend->writers > 1 && conversation[0] != '\0') by[0] = tm__slice(conversation);
  return &s->writes[s->writers == 1 ? 0 : tm__digest_u64(by, 1) % s->writers];
}

/* What cannot be encoded is answered in its turn, without being committed. */
static void encode(tm_storage *s, tm_commit_job *job) {
  job->encoding = (tm_encoding){0};
  job->refused = false;
  job->flags = 0;
  if (s->codec == NULL || job->in_memory) return;
  tm_status status = tm__encoding_begin(&job->encoding, s->codec, &job->commit, job->compress,
                                        job->seal, &job->error);
  job->flags = job->encoding.row.flags;
  if (status == TM_OK) return;
  job->refused = true;
  job->commit.status = status;
  (void)tm__copy(job->error.conversation_id, sizeof(job->error.conversation_id),
                 tm__slice(job->commit.head.id));
}

void tm__storage_commit(tm_storage *s, tm_commit_job *job) {
  encode(s, job);
  tm_lane *l = lane_for(s, job->commit.head.tenant, job->commit.head.id);
  tm_error away = {0};
  if (!tm__lane_add(l, &l->commits, &job->message, &away)) refuse_commit(job, &away);
}

void tm__storage_run(tm_storage *s, tm_store_job *job) {
  tm_lane *l = job->write ? lane_for(s, job->tenant, "") : &s->reads;
  tm_error away = {0};
  if (!tm__lane_add(l, &l->jobs, &job->message, job->reply_to != NULL ? &away : NULL))
    refuse_job(job, &away);
}
