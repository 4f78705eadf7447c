/* queue.c - an unbounded list of messages under a mutex; who posts bounds what he posts. */
#include "loop/worker.h"

int tm__queue_init(tm_queue *q) {
  *q = (tm_queue){0};
  return uv_mutex_init(&q->lock);
}

void tm__queue_deinit(tm_queue *q) {
  uv_mutex_destroy(&q->lock);
}

bool tm__queue_push_locked(tm_queue *q, tm_message *m, bool *ok) {
  m->next = NULL;
  *ok = !q->closed;
  bool wake = *ok && q->first == NULL;
  if (wake) {
    q->first = m;
    q->last = m;
  } else if (*ok) {
    q->last->next = m;
    q->last = m;
  }
  return wake;
}

bool tm__queue_push(tm_queue *q, tm_message *m, bool *ok) {
  uv_mutex_lock(&q->lock);
  bool wake = tm__queue_push_locked(q, m, ok);
  uv_mutex_unlock(&q->lock);
  return wake;
}

tm_message *tm__queue_take(tm_queue *q) {
  uv_mutex_lock(&q->lock);
  tm_message *all = q->first;
  q->first = NULL;
  q->last = NULL;
  uv_mutex_unlock(&q->lock);
  return all;
}

bool tm__queue_close(tm_queue *q) {
  uv_mutex_lock(&q->lock);
  bool empty = q->first == NULL;
  if (empty) q->closed = true;
  uv_mutex_unlock(&q->lock);
  return empty;
}
