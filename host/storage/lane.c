/* lane.c - the queues of the store's threads. */
#include "storage/lane.h"

static void push(tm_lane_queue *q, tm_message *m) {
  m->next = NULL;
  if (q->first == NULL) {
    q->first = m;
  } else {
    q->last->next = m;
  }
  q->last = m;
}

tm_message *tm__lane_pop(tm_lane_queue *q) {
  tm_message *m = q->first;
  if (m != NULL) q->first = m->next;
  return m;
}

tm_status tm__lane_init(tm_lane *l, tm_error *err) {
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

void tm__lane_deinit(tm_lane *l) {
  if (!l->made) return;
  uv_cond_destroy(&l->wake);
  uv_mutex_destroy(&l->lock);
}

bool tm__lane_add(tm_lane *l, tm_lane_queue *to, tm_message *m, tm_error *away) {
  uv_mutex_lock(&l->lock);
  bool refused = away != NULL && l->busy && l->away.status != TM_OK;
  if (refused) {
    *away = l->away;
  } else {
    push(to, m);
    uv_cond_signal(&l->wake);
  }
  uv_mutex_unlock(&l->lock);
  return !refused;
}

void tm__lane_note(tm_lane *l, const tm_error *why, tm_lane_queue *commits, tm_lane_queue *jobs) {
  uv_mutex_lock(&l->lock);
  l->away = why != NULL ? *why : (tm_error){0};
  if (why != NULL && l->busy) {
    *commits = l->commits;
    *jobs = l->jobs;
    l->commits = l->jobs = (tm_lane_queue){0};
  }
  uv_mutex_unlock(&l->lock);
}

void tm__lane_close(tm_lane *l) {
  if (!l->made) return;
  uv_mutex_lock(&l->lock);
  l->closing = true;
  uv_cond_broadcast(&l->wake);
  uv_mutex_unlock(&l->lock);
}

bool tm__lane_wait(tm_lane *l, int64_t ms) {
  while (l->commits.first == NULL && l->jobs.first == NULL) {
    if (l->closing) return false;
    if (ms == 0) {
      uv_cond_wait(&l->wake, &l->lock);
    } else if (uv_cond_timedwait(&l->wake, &l->lock, (uint64_t)ms * 1000000) != 0) {
      return true;
    }
  }
  return true;
}
