/* rooms.c - how many states a worker has where each tenant has its own: no more than there is room
 * for. What has none waits, in order, until the least recently used one that nothing runs in can
 * go; nothing that a turn runs in is taken away. Where tenants share states there is room for all.
 */
#include <stdio.h>

#include "bind/executor.h"

#define SHARE 8 /* turns that a state which is always in use takes while others wait for room */

void tm__rooms_wait(tm_system *s) {
  tm_lua *l = s->lua;
  s->queued = true;
  *l->queue_end = s;
  l->queue_end = &s->behind;
}

static void leave_queue(tm_system *s) {
  tm_lua *l = s->lua;
  tm_system **at = &l->queue;
  while (*at != s)
    at = &(*at)->behind;
  *at = s->behind;
  if (l->queue_end == &s->behind) l->queue_end = at;
  s->behind = NULL;
  s->queued = false;
}

/* How busy the rooms are shows an operator whether there are enough of them. */
static void count(tm_system *s, bool comes) {
  tm_lua *l = s->lua;
  char states[24];
  l->states += comes ? 1 : (size_t)-1;
  if (l->o.tenant_states == 0 || l->ending) return;
  (void)snprintf(states, sizeof(states), "%zu", l->states);
  tm__log(l->o.log, TM_LOG_DEBUG,
          comes ? "a tenant's state is loaded" : "a tenant's state is dropped", "system",
          s->bundle->system, "version", s->bundle->version, "tenant", s->tenant, "states", states,
          NULL);
}

void tm__rooms_leave(tm_system *s) {
  if (s->queued)
    leave_queue(s);
  else
    count(s, false);
}

static tm_system *least_used(const tm_lua *l) {
  tm_system *least = NULL;
  for (tm_system *s = l->systems; s != NULL; s = s->next)
    if (tm__system_idle(s) && (least == NULL || s->used < least->used)) least = s;
  return least;
}

static bool is_crowded(const tm_lua *l) {
  return l->o.tenant_states > 0 && l->states >= l->o.tenant_states;
}

static bool make_room(const tm_lua *l) {
  if (!is_crowded(l)) return true;
  tm_system *s = least_used(l);
  if (s != NULL) tm__system_free(s);
  return s != NULL;
}

void tm__rooms_go_on(tm_lua *l) {
  while (l->queue != NULL && !l->ending && make_room(l)) {
    tm_system *s = l->queue;
    leave_queue(s);
    s->loading = true;
    count(s, true);
    tm__worker_beside(l->o.worker, &s->job);
  }
}

bool tm__rooms_full(const tm_lua *l) {
  return l->queue != NULL || (is_crowded(l) && least_used(l) == NULL);
}

bool tm__rooms_share(tm_system *s) {
  if (s->queued || s->loading) return true;
  if (s->lua->queue == NULL)
    s->share = 0;
  else
    s->share++;
  if (s->share <= SHARE) return true;
  s->spent = s->gave_way = true;
  return false;
}
