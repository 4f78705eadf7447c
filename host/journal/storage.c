/* storage.c - the threads that block, so that nobody else does. The writer takes everything that
 * waits into one transaction; readers run one job at a time each. */
#include "journal/storage.h"

#include <stdlib.h>
#include <string.h>

#define READERS      2
#define GROUP_MAX    256                 /* commits in one transaction */
#define MEMORY_BYTES ((size_t)256 << 20) /* of conversations that live in memory only */
#define PROBE_MS     500                 /* between attempts to write while writing fails */

typedef struct list {
  tm_message *first, *last;
} list;

typedef struct lane { /* what waits for a kind of thread */
  uv_mutex_t lock;
  uv_cond_t wake;
  list commits, jobs;
  bool closing, made;
} lane;

typedef struct store_thread {
  struct tm_storage *storage;
  tm_store_access access; /* its own connections */
  uv_thread_t thread;
  bool started;
} store_thread;

struct tm_storage {
  const tm_store_backend *backend, *memory_backend;
  tm_store *store, *memory_store;
  const tm_log *log;
  lane writes, reads;
  store_thread threads[1 + READERS]; /* the first is the writer */
  bool reads_fail, writes_fail;      /* atomic: what the newest ones did */
};

/* ---- lanes ---- */

static void list_add(list *l, tm_message *m) {
  m->next = NULL;
  if (l->first == NULL) {
    l->first = m;
  } else {
    l->last->next = m;
  }
  l->last = m;
}

static tm_message *list_pop(list *l) {
  tm_message *m = l->first;
  if (m != NULL) l->first = m->next;
  return m;
}

static tm_status lane_init(lane *l, tm_error *err) {
  int failed = uv_mutex_init(&l->lock);
  if (failed == 0) {
    failed = uv_cond_init(&l->wake);
    if (failed != 0) uv_mutex_destroy(&l->lock);
  }
  l->made = failed == 0;
  if (failed == 0) return TM_OK;
  return tm__fail(err, TM_EUNAVAILABLE, "store.start", "start the store's queues: %s",
                  uv_strerror(failed));
}

static void lane_deinit(lane *l) {
  if (!l->made) return;
  uv_cond_destroy(&l->wake);
  uv_mutex_destroy(&l->lock);
}

static void lane_add(lane *l, list *to, tm_message *m) {
  uv_mutex_lock(&l->lock);
  list_add(to, m);
  uv_cond_signal(&l->wake);
  uv_mutex_unlock(&l->lock);
}

static void lane_close(lane *l) {
  if (!l->made) return;
  uv_mutex_lock(&l->lock);
  l->closing = true;
  uv_cond_broadcast(&l->wake);
  uv_mutex_unlock(&l->lock);
}

typedef enum lane_news { LANE_CLOSED, LANE_WORK, LANE_IDLE } lane_news;

/* Under the lock. LANE_IDLE: nothing came for `ms`; 0: waits for ever. */
static lane_news lane_wait(lane *l, int64_t ms) {
  while (l->commits.first == NULL && l->jobs.first == NULL) {
    if (l->closing) return LANE_CLOSED;
    if (ms == 0) {
      uv_cond_wait(&l->wake, &l->lock);
    } else if (uv_cond_timedwait(&l->wake, &l->lock, (uint64_t)ms * 1000000) != 0) {
      return LANE_IDLE;
    }
  }
  return LANE_WORK;
}

/* ---- work ---- */

static void answer(tm_worker *reply_to, tm_message *m) {
  if (reply_to != NULL) {
    tm__worker_post(reply_to, m);
  } else {
    m->run(m);
  }
}

/* Reading and writing fail and are mended each on its own: a full disk is still readable. */
/* One damaged record was read as well as any other. */
static bool says_store_fails(tm_status status, const tm_error *err) {
  if (status == TM_ECORRUPT) return strcmp(err->code, "journal.damaged") != 0;
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

static void set_error(tm_commit_job *job, tm_status group, const tm_error *err) {
  tm_status status = group == TM_OK ? job->commit.status : group;
  const char *id = job->commit.head.id;
  job->commit.status = status;
  if (status == TM_OK) return;
  if (group != TM_OK) {
    job->error = *err;
  } else if (status == TM_ECONFLICT) {
    (void)tm__fail(&job->error, status, "store.conflict",
                   "conversation %s was changed by another process meanwhile", id);
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

/* One transaction of those jobs that are for this store. */
static void commit_group(store_thread *t, tm_commit_job **jobs, size_t count, bool in_memory) {
  const tm_store_access *a = &t->access;
  tm_commit *items[GROUP_MAX];
  size_t n = 0;
  for (size_t i = 0; i < count; i++) {
    if (jobs[i]->in_memory == in_memory) items[n++] = &jobs[i]->commit;
  }
  if (n == 0) return;
  tm_error err = {0};
  tm_status status = in_memory ? a->memory_backend->commit(a->memory_conn, items, n, &err)
                               : a->backend->commit(a->conn, items, n, &err);
  if (!in_memory) note_health(t->storage, true, status, &err);
  for (size_t i = 0; i < count; i++) {
    if (jobs[i]->in_memory == in_memory) set_error(jobs[i], status, &err);
  }
}

static void run_commits(store_thread *t, tm_commit_job **jobs, size_t count) {
  commit_group(t, jobs, count, false);
  commit_group(t, jobs, count, true);
  for (size_t i = 0; i < count; i++) {
    answer(jobs[i]->reply_to, &jobs[i]->message);
  }
}

static void run_job(store_thread *t, tm_store_job *job) {
  job->error = (tm_error){0};
  job->status = job->work(job, &t->access, &job->error);
  note_health(t->storage, job->write, job->status, &job->error);
  answer(job->reply_to, &job->message);
}

static tm_commit_job *commit_of(tm_message *m) {
  return (tm_commit_job *)((char *)m - offsetof(tm_commit_job, message));
}

static tm_store_job *job_of(tm_message *m) {
  return (tm_store_job *)((char *)m - offsetof(tm_store_job, message));
}

/* Who is told that the host is not ready sends nothing that could show that it is again. */
static void probe(store_thread *t) {
  tm_error err;
  tm_status status = t->access.backend->probe(t->access.conn, &err);
  note_health(t->storage, true, status, &err);
}

static void writer_main(void *arg) {
  store_thread *t = arg;
  lane *l = &t->storage->writes;
  tm_commit_job *group[GROUP_MAX];
  lane_news news;
  uv_mutex_lock(&l->lock);
  while ((news = lane_wait(l, t->storage->writes_fail ? PROBE_MS : 0)) != LANE_CLOSED) {
    size_t n = 0;
    while (n < GROUP_MAX && l->commits.first != NULL) {
      group[n++] = commit_of(list_pop(&l->commits));
    }
    tm_message *job = list_pop(&l->jobs);
    uv_mutex_unlock(&l->lock);
    if (news == LANE_IDLE) probe(t);
    if (job != NULL) run_job(t, job_of(job)); /* may be the script that a commit's version means */
    if (n > 0) run_commits(t, group, n);
    uv_mutex_lock(&l->lock);
  }
  uv_mutex_unlock(&l->lock);
}

static void reader_main(void *arg) {
  store_thread *t = arg;
  lane *l = &t->storage->reads;
  uv_mutex_lock(&l->lock);
  while (lane_wait(l, 0) != LANE_CLOSED) {
    tm_message *job = list_pop(&l->jobs);
    uv_mutex_unlock(&l->lock);
    run_job(t, job_of(job));
    uv_mutex_lock(&l->lock);
  }
  uv_mutex_unlock(&l->lock);
}

/* ---- opening and closing ---- */

static tm_status connect_thread(tm_storage *s, store_thread *t, tm_store_role role, tm_error *err) {
  t->storage = s;
  t->access.backend = s->backend;
  t->access.memory_backend = s->memory_backend;
  tm_status status = s->backend->connect(&t->access.conn, s->store, role, err);
  if (status != TM_OK) return status;
  return s->memory_backend->connect(&t->access.memory_conn, s->memory_store, role, err);
}

static tm_status start_thread(store_thread *t, tm_store_role role, tm_error *err) {
  int failed = uv_thread_create(&t->thread, role == TM_STORE_WRITER ? writer_main : reader_main, t);
  t->started = failed == 0;
  if (failed == 0) return TM_OK;
  return tm__fail(err, TM_EUNAVAILABLE, "store.start", "start a thread of the store: %s",
                  uv_strerror(failed));
}

static tm_status open_stores(tm_storage *s, const tm_store_options *o, tm_error *err) {
  tm_status status = s->backend->open(&s->store, o, err);
  if (status != TM_OK) return status;
  tm_store_options volatile_options = *o;
  volatile_options.location = "";
  return s->memory_backend->open(&s->memory_store, &volatile_options, err);
}

static int64_t system_now(void *ud) {
  (void)ud;
  return tm__clock_now(&(const tm_clock){0});
}

static tm_status start(tm_storage *s, const tm_store_options *o, tm_error *err) {
  tm_status status = lane_init(&s->writes, err);
  if (status == TM_OK) status = lane_init(&s->reads, err);
  if (status == TM_OK) status = open_stores(s, o, err);
  for (size_t i = 0; status == TM_OK && i < 1 + READERS; i++) {
    status = connect_thread(s, &s->threads[i], i == 0 ? TM_STORE_WRITER : TM_STORE_READER, err);
  }
  for (size_t i = 0; status == TM_OK && i < 1 + READERS; i++) {
    status = start_thread(&s->threads[i], i == 0 ? TM_STORE_WRITER : TM_STORE_READER, err);
  }
  return status;
}

tm_status tm__storage_open(tm_storage **out, tm_slice backend, const tm_store_options *options,
                           const tm_log *log, tm_error *err) {
  *out = NULL;
  const tm_store_backend *b = tm__store_backend(backend);
  const tm_store_backend *memory = tm__store_backend(TM_S("memory"));
  if (b == NULL || memory == NULL) {
    return tm__fail(err, TM_EUNSUPPORTED, "store.unknown",
                    "there is no backend \"%.*s\" in this build; set workflow_persistence.backend",
                    (int)(backend.len < 64 ? backend.len : 64), backend.ptr);
  }
  tm_storage *s = calloc(1, sizeof(*s));
  if (s == NULL) return tm__fail_memory(err, "the store");
  s->backend = b;
  s->memory_backend = memory;
  s->log = log;
  tm_store_options o = *options;
  if (o.now_ms == NULL) o.now_ms = system_now;
  if (o.memory_bytes == 0) o.memory_bytes = MEMORY_BYTES;
  tm_status status = start(s, &o, err);
  if (status == TM_OK) {
    *out = s;
  } else {
    tm__storage_close(s);
  }
  return status;
}

void tm__storage_close(tm_storage *s) {
  if (s == NULL) return;
  lane_close(&s->writes);
  lane_close(&s->reads);
  for (size_t i = 0; i < 1 + READERS; i++) {
    if (s->threads[i].started) (void)uv_thread_join(&s->threads[i].thread);
  }
  for (size_t i = 0; i < 1 + READERS; i++) {
    s->backend->disconnect(s->threads[i].access.conn);
    s->memory_backend->disconnect(s->threads[i].access.memory_conn);
  }
  s->backend->close(s->store);
  s->memory_backend->close(s->memory_store);
  lane_deinit(&s->writes);
  lane_deinit(&s->reads);
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

bool tm__storage_shared(const tm_storage *s) {
  return s->backend->shared;
}

void tm__storage_commit(tm_storage *s, tm_commit_job *job) {
  lane_add(&s->writes, &s->writes.commits, &job->message);
}

void tm__storage_run(tm_storage *s, tm_store_job *job) {
  lane *l = job->write ? &s->writes : &s->reads;
  lane_add(l, &l->jobs, &job->message);
}
