/* watch.c - looks at the folders of scripts every now and then, and has them loaded anew when they
 * have changed and then stayed as they are for a moment.
 *
 * Looking is polling: an editor that renames over a file, a folder that is replaced, a link that is
 * turned elsewhere and a network's file system are all the same to it. What a script may read is
 * all it looks at: files whose name ends in .lua, in folders that are not hidden.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host.h"

enum {
  LOOK_MS = 250,
  REST_FOR_LOOK = 20, /* a look may take this part of the time at most */
  AFTER_FAULT_MS = 10000,
  DEPTH_MAX = 16,
};

struct tm_watch {
  tm_beside job; /* first: a look */
  tm_message start;
  tm_host *host;
  const char *const *folders; /* the configuration's */
  size_t folder_count;
  bool armed, stopped;
  uint64_t timer;
  uint64_t found, seen; /* by this look; by the one before */
  uint64_t loaded;      /* what was there when it was loaded last; 0: not known */
  int64_t took_us;
  bool failed; /* the last reload could not be done for now: no fault of the scripts */
};

/* ---- one look ---- */

typedef struct place { /* a folder, and those that it is in */
  const struct place *up;
  dev_t device;
  ino_t inode;
  int depth;
} place;

static void mix(uint64_t *print, const void *bytes, size_t size) {
  const tm_slice parts[] = {{(const char *)print, sizeof(*print)}, {bytes, size}};
  *print = tm__digest_u64(parts, 2);
}

static void mix_file(uint64_t *print, const char *name, const struct stat *st) {
  const int64_t about[] = {st->st_size,         (int64_t)st->st_ino, st->st_mtim.tv_sec,
                           st->st_mtim.tv_nsec, st->st_ctim.tv_sec,  st->st_ctim.tv_nsec};
  mix(print, name, strlen(name));
  mix(print, about, sizeof(about));
}

static bool is_script(const char *name) {
  size_t len = strlen(name);
  return len > 4 && strcmp(name + len - 4, ".lua") == 0;
}

static bool is_within(const place *p, const struct stat *st) {
  for (; p != NULL; p = p->up)
    if (p->device == st->st_dev && p->inode == st->st_ino) return true;
  return false;
}

static int is_shown(const struct dirent *e) {
  return e->d_name[0] != '.';
}

/* What cannot be read, or is gone again, counts by its name. */
static void look_into(uint64_t *print, const char *path, const place *up) {
  struct stat st;
  struct dirent **entries = NULL;
  mix(print, path, strlen(path));
  if (stat(path, &st) != 0 || is_within(up, &st)) return;
  place here = {up, st.st_dev, st.st_ino, up != NULL ? up->depth + 1 : 0};
  int n = here.depth < DEPTH_MAX ? scandir(path, &entries, is_shown, alphasort) : 0;
  for (int i = 0; i < n; i++) {
    char at[4096];
    int len = snprintf(at, sizeof(at), "%s/%s", path, entries[i]->d_name);
    bool fits = len > 0 && (size_t)len < sizeof(at);
    if (fits && stat(at, &st) == 0) {
      if (S_ISDIR(st.st_mode))
        look_into(print, at, &here);
      else if (is_script(entries[i]->d_name))
        mix_file(print, at, &st);
    }
    free(entries[i]);
  }
  free(entries);
}

uint64_t tm__scripts_fingerprint(const char *const *folders, size_t count) {
  uint64_t print = 1;
  for (size_t i = 0; i < count; i++)
    look_into(&print, folders[i], NULL);
  return print;
}

/* ---- when ---- */

static void on_timer(void *ud) {
  tm_watch *w = ud;
  w->armed = false;
  tm__worker_beside(w->host->control, &w->job);
}

static void arm(tm_watch *w, int64_t ms) {
  tm_error err;
  int64_t rest = w->took_us * REST_FOR_LOOK / 1000;
  w->armed = tm__timer_start(w->host->control, (uint64_t)(ms > rest ? ms : rest), on_timer, w,
                             &w->timer, &err) == TM_OK;
  if (!w->armed)
    tm__log_error(&w->host->log, TM_LOG_ERROR, "scripts are not watched any more", &err);
}

/* On the control thread. A fault of the scripts is worth another try when they change; where the
 * store or memory was in the way, that is worth one later. */
static void on_reloaded(void *ud, const tm_reply *reply) {
  tm_watch *w = ud;
  w->failed = reply->status == TM_EUNAVAILABLE || reply->status == TM_ENOMEM;
  if (w->failed) w->loaded = 0;
  if (!w->stopped) arm(w, w->failed ? AFTER_FAULT_MS : LOOK_MS);
}

static void look(tm_beside *job) {
  tm_watch *w = (tm_watch *)(void *)job;
  int64_t began = tm__clock_monotonic_us();
  w->found = tm__scripts_fingerprint(w->folders, w->folder_count);
  w->took_us = tm__clock_monotonic_us() - began;
}

static void on_look(tm_beside *job) {
  tm_watch *w = (tm_watch *)(void *)job;
  bool rests = w->found == w->seen;
  w->seen = w->found;
  if (w->stopped) return;
  if (!rests || w->found == w->loaded) {
    arm(w, LOOK_MS);
  } else {
    w->loaded = w->found;
    tm_host_reload(w->host, on_reloaded, w);
  }
}

static void on_start(tm_message *m) {
  tm_watch *w = (tm_watch *)((char *)m - offsetof(tm_watch, start));
  if (!w->stopped) tm__worker_beside(w->host->control, &w->job);
}

/* ---- life ---- */

tm_status tm_host_watch(tm_host *h, tm_error *err) {
  if (h->state != TM_HOST_RUNNING || h->watch != NULL)
    return tm__fail(err, TM_EINVAL, "host.watch", "watch once, after tm_host_start");
  tm_watch *w = calloc(1, sizeof(*w));
  if (w == NULL) return tm__fail_memory(err, "watching the scripts");
  *w = (tm_watch){.job = {.work = look, .done = on_look}, .start.run = on_start, .host = h};
  w->folder_count = tm__config_list(h->config, "scripts", &w->folders);
  h->watch = w;
  tm__worker_post(h->control, &w->start);
  return TM_OK;
}

void tm__watch_stop(tm_watch *w) {
  if (w == NULL) return;
  w->stopped = true;
  if (w->armed) (void)tm__timer_cancel(w->host->control, w->timer);
  w->armed = false;
}

void tm__watch_free(tm_watch *w) {
  free(w);
}
