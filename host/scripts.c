/* scripts.c - systems: found in folders, loaded beside the running ones, switched to in one move,
 * described and checked. When that happens is reload.c's business. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host.h"
#include "keeping/versions.h"

enum { MAX_SYSTEMS = 1024 };

/* Paths of system folders: those that hold an init.lua. */
typedef struct folder_list {
  char **paths;
  size_t count;
} folder_list;

static void folders_free(folder_list *l) {
  for (size_t i = 0; i < l->count; i++)
    free(l->paths[i]);
  free(l->paths);
  *l = (folder_list){0};
}

static tm_status folders_add(folder_list *l, const char *path, tm_error *err) {
  if (l->count == MAX_SYSTEMS)
    return tm__fail(err, TM_ELIMIT, "script.too_many",
                    "there are more than %d systems, at %s; remove some, or run several hosts",
                    MAX_SYSTEMS, path);
  char **grown = realloc(l->paths, (l->count + 1) * sizeof(*grown));
  if (grown == NULL) return tm__fail_memory(err, "systems");
  l->paths = grown;
  l->paths[l->count] = tm__slice_dup(tm__slice(path));
  if (l->paths[l->count] == NULL) return tm__fail_memory(err, "systems");
  l->count++;
  return TM_OK;
}

enum { PATH_SIZE = 4200 };

/* A link to nothing, or a folder: that it was meant to be one is enough. */
static bool has_init(const char *dir) {
  char path[PATH_SIZE];
  struct stat st;
  (void)snprintf(path, sizeof(path), "%s/init.lua", dir);
  return lstat(path, &st) == 0;
}

static int not_hidden(const struct dirent *e) {
  return e->d_name[0] != '.';
}

static int is_lua(const struct dirent *e) {
  size_t len = strlen(e->d_name);
  return len > 4 && strcmp(e->d_name + len - 4, ".lua") == 0;
}

static bool is_dangling(const char *path) {
  struct stat st;
  return lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && stat(path, &st) != 0;
}

/* Something that was meant to be a system, whether it can be loaded or not. */
static bool is_system(const char *path) {
  if (has_init(path) || is_dangling(path)) return true;
  struct dirent **entries = NULL;
  int n = scandir(path, &entries, is_lua, NULL);
  for (int i = 0; i < n; i++)
    free(entries[i]);
  free(entries);
  return n > 0;
}

/* Whether a system's folder has an init.lua that can be read. */
static tm_status check_init(const char *dir, tm_error *err) {
  char init[PATH_SIZE];
  struct stat st;
  (void)snprintf(init, sizeof(init), "%s/init.lua", dir);
  if (stat(init, &st) == 0 && S_ISREG(st.st_mode)) return TM_OK;
  const char *slash = strrchr(dir, '/');
  const char *name = slash != NULL ? slash + 1 : dir;
  const char *what = is_dangling(dir)    ? " is a link to nothing"
                     : is_dangling(init) ? "/init.lua is a link to nothing"
                     : has_init(dir)     ? "/init.lua is no regular file"
                                         : " has Lua files, but no init.lua";
  return tm__fail(err, TM_EINVAL, "script.no_init",
                  "the system '%s' cannot be loaded: %s%s; mend it, or take the folder away", name,
                  dir, what);
}

/* A system's folder itself, or every system in it, in the order of their names. */
static tm_status find_systems(folder_list *l, const char *path, tm_error *err) {
  if (has_init(path)) return folders_add(l, path, err);
  struct dirent **entries = NULL;
  int n = scandir(path, &entries, not_hidden, alphasort);
  if (n < 0 && errno == ENOMEM) return tm__fail_memory(err, "the scripts folder");
  if (n < 0 && errno == ENOTDIR)
    return tm__fail(err, TM_EIO, "script.folder",
                    "%s is a file; what is wanted is the folder of a system, or one of systems",
                    path);
  if (n < 0)
    return tm__fail(err, TM_EIO, "script.folder",
                    "cannot read the scripts folder %s: %s (key `scripts`, or the argument)", path,
                    strerror(errno));
  tm_status s = TM_OK;
  for (int i = 0; i < n; i++) {
    char dir[4096];
    int len = snprintf(dir, sizeof(dir), "%s/%s", path, entries[i]->d_name);
    if (s == TM_OK && len > 0 && (size_t)len < sizeof(dir) && is_system(dir))
      s = folders_add(l, dir, err);
    free(entries[i]);
  }
  free(entries);
  return s;
}

static tm_status configured_systems(const tm_host *h, folder_list *l, tm_error *err) {
  const char *const *folders = NULL;
  size_t n = tm__config_list(h->config, "scripts", &folders);
  tm_status s = TM_OK;
  for (size_t i = 0; s == TM_OK && i < n; i++)
    s = find_systems(l, folders[i], err);
  return s;
}

/* ---- loading ---- */

typedef struct put_job {
  tm_store_job job;
  uv_sem_t done;
  tm_bundle **bundles;
  size_t count;
  int64_t now;
} put_job;

/* A store that has them all is enough to begin with, also if it cannot be written: that they are in
 * use again is then said by the janitor. */
static tm_status put_work(tm_store_job *job, const tm_store_access *a, tm_error *err) {
  const put_job *p = (const put_job *)(const void *)job;
  tm_status s = tm__versions_put(a, p->bundles, p->count, err);
  if (s == TM_OK) (void)tm__versions_use(a, p->bundles, p->count, p->now, NULL);
  return s;
}

static void put_done(tm_message *m) {
  uv_sem_post(&((put_job *)(void *)m)->done);
}

/* Before a version is used its sources are durable: a conversation can then finish on it. */
static tm_status put_sources(tm_host *h, tm_bundle **bundles, size_t count, tm_error *err) {
  put_job p = {.job = {.write = true, .work = put_work, .message.run = put_done},
               .bundles = bundles,
               .count = count,
               .now = tm__clock_now(&h->clock)};
  if (uv_sem_init(&p.done, 0) != 0) return tm__fail_memory(err, "semaphore");
  tm__storage_run(h->storage, &p.job);
  uv_sem_wait(&p.done);
  uv_sem_destroy(&p.done);
  if (p.job.status != TM_OK && err != NULL) *err = p.job.error;
  return p.job.status;
}

static tm_status load_bundles(tm_host *h, const folder_list *l, tm_bundle **bundles,
                              tm_error *err) {
  tm_vm_options o = tm__host_vm_options(h);
  tm_status s = TM_OK;
  for (size_t i = 0; s == TM_OK && i < l->count; i++) {
    s = check_init(l->paths[i], err);
    if (s == TM_OK) s = tm__bundle_load(&bundles[i], l->paths[i], &o, err);
    for (size_t k = 0; s == TM_OK && k < i; k++)
      if (strcmp(bundles[k]->system, bundles[i]->system) == 0)
        s = tm__fail(err, TM_EINVAL, "script.duplicate",
                     "two systems are named '%s': %s and %s; rename one folder", bundles[i]->system,
                     l->paths[k], l->paths[i]);
  }
  return s;
}

void tm__scripts_free(tm_scripts *s) {
  for (size_t i = 0; s->bundles != NULL && i < s->count; i++)
    tm__bundle_unref(s->bundles[i]);
  free(s->bundles);
  *s = (tm_scripts){0};
}

tm_status tm__scripts_load(tm_scripts *out, tm_host *h, tm_error *err) {
  folder_list l = {0};
  *out = (tm_scripts){0};
  tm_status s = configured_systems(h, &l, err);
  if (s == TM_OK) out->bundles = calloc(l.count + 1, sizeof(tm_bundle *));
  if (out->bundles != NULL) {
    out->count = l.count;
    s = load_bundles(h, &l, out->bundles, err);
  } else if (s == TM_OK) {
    s = tm__fail_memory(err, "systems");
  }
  if (s == TM_OK) s = put_sources(h, out->bundles, out->count, err);
  if (s != TM_OK) tm__scripts_free(out);
  folders_free(&l);
  return s;
}

tm_status tm__scripts_emptied(const tm_scripts *s, const tm_host *h, tm_error *err) {
  tm_scripts old = {0};
  const char *const *folders = NULL;
  size_t n = tm__config_list(h->config, "scripts", &folders);
  if (s->count > 0 || n == 0) return TM_OK;
  if (!tm__registry_all(h->registry, &old.bundles, &old.count))
    return tm__fail_memory(err, "systems");
  tm_status st = TM_OK;
  if (old.count > 0)
    st = tm__fail(err, TM_EINVAL, "script.emptied",
                  "none of the systems that are loaded (%zu) is in %s%s any more; put them there "
                  "again, or stop the host",
                  old.count, folders[0], n > 1 ? " and the other folders" : "");
  tm__scripts_free(&old);
  return st;
}

/* ---- switching ---- */

/* True: it is new. */
static bool log_new(const tm_host *h, const tm_bundle *b, const tm_bundle *old) {
  const char *previous = old != NULL ? old->version : NULL;
  if (previous == NULL)
    tm__log(&h->log, TM_LOG_INFO, "system loaded", "system", b->system, "version", b->version,
            NULL);
  else if (strcmp(previous, b->version) != 0)
    tm__log(&h->log, TM_LOG_INFO, "system loaded anew", "system", b->system, "version", b->version,
            "previous", previous, NULL);
  return previous == NULL || strcmp(previous, b->version) != 0;
}

static bool is_among(const tm_scripts *s, const char *system) {
  for (size_t i = 0; i < s->count; i++)
    if (strcmp(s->bundles[i]->system, system) == 0) return true;
  return false;
}

static size_t report_new(const tm_host *h, const tm_scripts *s, tm_buf *out) {
  size_t count = 0;
  tm__buf_text(out, "{\"systems\":[");
  for (size_t i = 0; i < s->count; i++) {
    const tm_bundle *b = s->bundles[i];
    tm_bundle *old = tm__registry_current(h->registry, tm__slice(b->system));
    count += log_new(h, b, old);
    tm__json_comma(out);
    tm__buf_byte(out, '{');
    tm__json_member_text(out, "name", b->system);
    tm__json_member_text(out, "version", b->version);
    tm__json_member_text(out, "previous", old != NULL ? old->version : NULL);
    tm__buf_byte(out, '}');
    tm__bundle_unref(old);
  }
  tm__buf_text(out, "]");
  return count;
}

static size_t report_gone(const tm_host *h, const tm_scripts *s, tm_buf *out) {
  tm_scripts old = {0};
  size_t count = 0;
  tm__json_key(out, "removed");
  tm__buf_byte(out, '[');
  if (!tm__registry_all(h->registry, &old.bundles, &old.count)) out->failed = true;
  for (size_t i = 0; i < old.count; i++) {
    const char *name = old.bundles[i]->system;
    if (is_among(s, name)) continue;
    tm__log(&h->log, TM_LOG_WARNING, "system removed: what has begun in it goes on", "system", name,
            NULL);
    tm__json_comma(out);
    tm__json_string(out, tm__slice(name));
    count++;
  }
  tm__buf_text(out, "]}");
  tm__scripts_free(&old);
  return count;
}

tm_status tm__scripts_switch(tm_scripts *s, tm_host *h, tm_buf *report, tm_error *err) {
  if (s->count == 0)
    tm__log(&h->log, TM_LOG_WARNING, "no system found: a system is a folder with an init.lua",
            "key", "scripts", NULL);
  size_t changes = report_new(h, s, report) + report_gone(h, s, report);
  if (changes == 0 && s->count > 0)
    tm__log(&h->log, TM_LOG_INFO, "the scripts have not changed", NULL);
  tm_status st = tm__buf_ok(report) ? tm__registry_switch(h->registry, s->bundles, s->count, err)
                                    : tm__fail_memory(err, "an answer");
  if (tm__buf_ok(report)) s->count = 0; /* taken over, in any case */
  tm__scripts_free(s);
  return st;
}

/* ---- what is loaded ---- */

static void describe_flows(tm_buf *out, tm_slice description) {
  tm_json_walk w;
  tm_slice key, flow;
  tm__buf_text(out, "{\"items\":[");
  bool any = tm__json_walk(&w, tm__json_get(description, "flows"));
  while (any && tm__json_next(&w, &key, &flow)) {
    tm__json_comma(out);
    tm__buf_byte(out, '{');
    static const char *const names[] = {"flow_id", "name", "description", "pattern", "start_step"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
      tm__json_member_raw(out, names[i], tm__json_get(flow, names[i]));
    tm__buf_byte(out, '}');
  }
  tm__buf_text(out, "],\"next\":null}");
}

static tm_status describe(tm_host *h, tm_slice tenant, const char *system, const char *flow_id,
                          tm_buf *out, tm_error *err) {
  if (system == NULL) {
    tm__registry_describe(h->registry, tenant, out);
    return TM_OK;
  }
  tm_bundle *b = tm__registry_offered(h->registry, tm__slice(system), tenant);
  tm_slice flow;
  tm_status s = TM_OK;
  if (b == NULL)
    s = tm__fail(err, TM_ENOTFOUND, "system.not_found",
                 "there is no system '%.64s'; `tidemill systems` lists what is loaded", system);
  else if (flow_id == NULL)
    describe_flows(out, b->description);
  else if ((s = tm__host_flow(&flow, b, flow_id, err)) == TM_OK)
    tm__buf_slice(out, flow);
  tm__bundle_unref(b);
  return s;
}

void tm_systems_read(tm_host *h, const char *tenant, const char *system, const char *flow_id,
                     tm_reply_fn fn, void *ud) {
  tm_error err;
  tm_buf out = {0};
  tm_status s = TM_EUNAVAILABLE;
  tm_slice whose = tm__slice(tenant != NULL ? tenant : "default");
  bool entered = tm__host_enter(h, &err);
  if (entered) s = describe(h, whose, system, flow_id, &out, &err);
  if (s == TM_OK)
    tm__host_answer(fn, ud, &out);
  else
    tm__host_refuse(fn, ud, &err);
  if (entered) tm__host_leave(h);
  tm__buf_free(&out);
}

/* ---- without start ---- */

void tm_config_read(tm_host *h, tm_reply_fn fn, void *ud) {
  tm_buf out = {0};
  tm__config_describe(h->config, &out);
  tm__host_answer(fn, ud, &out);
  tm__buf_free(&out);
}

static void count_levels(tm_slice items, size_t *errors, size_t *warnings) {
  tm_json_walk w;
  tm_slice key, item;
  bool any = tm__json_walk(&w, items);
  while (any && tm__json_next(&w, &key, &item)) {
    tm_slice level = tm__json_get(item, "level");
    *errors += tm__slice_is(level, "\"error\"");
    *warnings += tm__slice_is(level, "\"warning\"");
  }
}

/* Appends the elements of `items` to the array that `out` ends in. */
static void add_items(tm_buf *out, tm_slice items) {
  if (items.len <= 2) return;
  tm__json_comma(out);
  tm__buf_add(out, items.ptr + 1, items.len - 2);
}

/* A script that could not even be run to its end: a finding like the others. */
static void add_failure(tm_buf *out, const char *dir, const tm_error *err) {
  tm__json_comma(out);
  tm__buf_text(out, "{\"file\":");
  tm_buf file = {0};
  tm__buf_printf(&file, "%s/init.lua", dir);
  tm__json_string(out, tm__buf_view(&file));
  tm__buf_free(&file);
  tm__json_member_text(out, "level", "error");
  tm__json_member_int(out, "line", 1);
  tm__json_member_text(out, "rule", err->code);
  tm__json_member_text(out, "text", err->message);
  tm__buf_byte(out, '}');
}

static tm_status check_systems(tm_host *h, const folder_list *l, tm_buf *out, tm_error *err) {
  tm_vm_options o = tm__host_vm_options(h);
  size_t errors = 0, warnings = 0;
  tm_status s = TM_OK;
  tm__buf_text(out, "{\"items\":[");
  for (size_t i = 0; s == TM_OK && i < l->count; i++) {
    tm_buf one = {0};
    tm_error failure;
    s = check_init(l->paths[i], &failure);
    if (s == TM_OK) s = tm__system_check(l->paths[i], &o, &one, &failure);
    bool by_script = s == TM_ESCRIPT || s == TM_ELIMIT || s == TM_EINVAL;
    if (by_script)
      add_failure(out, l->paths[i], &failure);
    else if (s != TM_OK && err != NULL)
      *err = failure;
    errors += by_script;
    if (by_script) s = TM_OK;
    tm_slice items = tm__json_get(tm__buf_view(&one), "items");
    count_levels(items, &errors, &warnings);
    add_items(out, items);
    tm__buf_free(&one);
  }
  tm__buf_byte(out, ']');
  tm__json_member_int(out, "systems", (int64_t)l->count);
  tm__json_member_int(out, "errors", (int64_t)errors);
  tm__json_member_int(out, "warnings", (int64_t)warnings);
  tm__buf_byte(out, '}');
  return s;
}

void tm_scripts_check(tm_host *h, const char *const *paths, size_t count, tm_reply_fn fn,
                      void *ud) {
  folder_list l = {0};
  tm_buf out = {0};
  tm_error err;
  tm_status s = count == 0 ? configured_systems(h, &l, &err) : TM_OK;
  for (size_t i = 0; s == TM_OK && i < count; i++)
    s = find_systems(&l, paths[i], &err);
  if (s == TM_OK && l.count == 0)
    s = tm__fail(&err, TM_ENOTFOUND, "script.none",
                 "no system found in %s%s: a system is a folder with an init.lua",
                 count == 0 ? "the folders of the key `scripts`" : paths[0],
                 count > 1 ? " and the others" : "");
  if (s == TM_OK) s = check_systems(h, &l, &out, &err);
  if (s == TM_OK)
    tm__host_answer(fn, ud, &out);
  else
    tm__host_refuse(fn, ud, &err);
  tm__buf_free(&out);
  folders_free(&l);
}

void tm_text_render(tm_host *h, const char *view, const char *json, int columns, int colour,
                    tm_reply_fn fn, void *ud) {
  char width[16];
  (void)snprintf(width, sizeof(width), "%d", columns);
  tm_slice args[] = {tm__slice(view), tm__slice(json), tm__slice(width),
                     colour != 0 ? TM_S("1") : TM_S("")};
  tm_vm_options o = tm__host_vm_options(h);
  tm_buf out = {0};
  tm_error err;
  tm_vm *vm = NULL;
  tm_status s = tm__vm_new(&vm, &o, &err);
  if (s == TM_OK) s = tm__vm_call(vm, "render", args, 4, &out, &err);
  if (s == TM_OK)
    tm__host_answer(fn, ud, &out);
  else
    tm__host_refuse(fn, ud, &err);
  tm__vm_free(vm);
  tm__buf_free(&out);
}
