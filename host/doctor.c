/* doctor.c - looks at an installation as a careful operator would: configuration, store, events,
 * scripts, files that hold secrets, address, clock, disk, limits. It changes nothing, and each
 * finding says how to mend it. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "outbox/event_id.h"
#include "store_place.h"

#define MIB            (UINT64_C(1) << 20)
#define DISK_LEAST     (64 * MIB)
#define DISK_LOW       (1024 * MIB)
#define YEAR_2025      INT64_C(1735689600000)
#define CLOCK_MS       INT64_C(60000)  /* by how much machines may disagree */
#define LATE_MS        INT64_C(600000) /* that an event may wait before somebody should look */
#define DEFAULT_CONFIG "./agent_config.yaml"

typedef struct doctor {
  const tm_options *options;
  bool deep;
  tm_host *host;
  tm_buf items; /* JSON objects */
  int64_t errors, warnings;
} doctor;

/* ---- findings ---- */

static void find(doctor *d, tm_finding level, const char *area, tm_slice text) {
  static const char *const names[] = {"info", "warning", "error"};
  if (d->items.len > 0) tm__buf_byte(&d->items, ',');
  tm__buf_byte(&d->items, '{');
  tm__json_member_text(&d->items, "level", names[level]);
  tm__json_member_text(&d->items, "area", area);
  tm__json_member(&d->items, "text", text);
  tm__buf_byte(&d->items, '}');
  d->errors += level == TM_FINDING_ERROR;
  d->warnings += level == TM_FINDING_WARNING;
}

static void find_error(doctor *d, tm_finding level, const char *area, const tm_error *err) {
  tm_buf text = {0};
  tm__buf_printf(&text, "%s [%s]", err->message, err->code);
  find(d, level, area, tm__buf_view(&text));
  tm__buf_free(&text);
}

static void findf(doctor *d, tm_finding level, const char *area, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void findf(doctor *d, tm_finding level, const char *area, const char *fmt, ...) {
  char text[1024];
  va_list args;
  va_start(args, fmt);
  (void)vsnprintf(text, sizeof(text), fmt, args);
  va_end(args);
  find(d, level, area, tm__slice(text));
}

/* ---- configuration ---- */

static void on_warning(void *ud, const char *text) {
  find(ud, TM_FINDING_WARNING, "configuration", tm__slice(text));
}

/* One finding for each line of the message: each is a problem of its own. */
static void find_lines(doctor *d, const char *message) {
  for (const char *at = message; *at != '\0';) {
    size_t len = strcspn(at, "\n");
    if (len > 0) find(d, TM_FINDING_ERROR, "configuration", (tm_slice){at, len});
    at += len + (at[len] == '\n');
  }
}

static bool load_configuration(doctor *d) {
  tm_config *c = NULL;
  tm_error err;
  tm_config_options co = {.file = d->options->config_file,
                          .env_file = d->options->env_file,
                          .set = d->options->set,
                          .warn = on_warning,
                          .ud = d};
  tm_status status = tm__config_load(&c, &co, &err);
  tm__config_free(c);
  if (status == TM_OK) {
    tm_options o = *d->options;
    o.log = NULL; /* the warnings are findings */
    status = tm_host_new(&d->host, &o, &err);
  }
  if (status != TM_OK) find_lines(d, err.message);
  return status == TM_OK;
}

/* ---- files that others should not read or write ---- */

static void check_private(doctor *d, const char *area, const char *path, const char *what) {
  struct stat st;
  if (stat(path, &st) != 0 || (st.st_mode & 077) == 0) return;
  findf(d, (st.st_mode & 07) != 0 ? TM_FINDING_ERROR : TM_FINDING_WARNING, area,
        "%s holds %s, and %s may open it (mode %03o): chmod %s %s", path, what,
        (st.st_mode & 07) != 0 ? "everybody" : "its group", (unsigned)(st.st_mode & 0777),
        S_ISDIR(st.st_mode) ? "700" : "600", path);
}

static bool begins(tm_slice text, const char *with) {
  size_t len = strlen(with);
  return text.len >= len && memcmp(text.ptr, with, len) == 0;
}

/* Of a secret that stands in a file of its own: NAME_FILE names it. */
static void check_secret_file(doctor *d, tm_slice origin) {
  char name[128];
  tm_slice rest = {origin.ptr + 4, origin.len - 4};
  const char *path = tm__copy(name, sizeof(name), rest) ? getenv(name) : NULL;
  if (path != NULL) check_private(d, "secrets", path, "a secret");
}

typedef struct origins {
  bool config, env_file;
} origins;

static void note_origin(doctor *d, origins *o, tm_slice item) {
  tm_buf text = {0};
  if (!tm__slice_is(tm__json_get(item, "value"), "\"(hidden)\"")) return;
  (void)tm__json_get_text(item, "origin", &text);
  tm_slice origin = tm__buf_view(&text);
  bool own_file = origin.len > 5 && memcmp(origin.ptr + origin.len - 5, "_FILE", 5) == 0;
  if (begins(origin, "env file ")) {
    o->env_file = true;
  } else if (begins(origin, "env ") && own_file) {
    check_secret_file(d, origin);
  } else if (begins(origin, "file")) {
    o->config = true;
  }
  tm__buf_free(&text);
}

/* Which files do secrets come from? */
static void check_secrets(doctor *d) {
  tm_buf text = {0};
  tm_json_walk w;
  tm_slice key, item;
  origins o = {.config = false};
  const char *file = d->options->config_file;
  tm__config_describe(d->host->config, &text);
  if (tm__buf_ok(&text) && tm__json_walk(&w, tm__json_get(tm__buf_view(&text), "items")))
    while (tm__json_next(&w, &key, &item))
      note_origin(d, &o, item);
  tm__buf_free(&text);
  if (o.config) check_private(d, "secrets", file != NULL ? file : DEFAULT_CONFIG, "secrets");
  if (o.env_file && d->options->env_file != NULL)
    check_private(d, "secrets", d->options->env_file, "secrets");
}

/* ---- keys; that there is one where sealing is wanted was looked at with the configuration ---- */

static void check_keys(doctor *d) {
  const tm_config *c = d->host->config;
  const char *folder = tm__config_text(c, "workflow_persistence.general.tenant_keys");
  if (folder[0] != '\0') check_private(d, "keys", folder, "the keys of tenants");
  if (tm__host_seals(c) && tm__config_bool(c, "workflow_persistence.general.accept_plaintext"))
    find(
        d, TM_FINDING_WARNING, "keys",
        TM_S("accept_plaintext is on: what somebody puts into the store unsealed is believed; turn "
             "it off when everything has been sealed"));
}

/* ---- the disk where there is no store yet; one that is there has its backend look ---- */

/* The folder of `path`, or the first above that exists. */
static char *existing_folder(const char *path) {
  char *folder = tm__slice_dup(tm__slice(path));
  struct stat st;
  while (folder != NULL && (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))) {
    char *slash = strrchr(folder, '/');
    if (slash == folder && folder[1] != '\0') {
      folder[1] = '\0';
    } else if (slash != NULL && slash != folder) {
      *slash = '\0';
    } else {
      free(folder);
      return tm__slice_dup(TM_S("."));
    }
  }
  return folder;
}

static bool is_network(const char *folder) {
  static const uint32_t kinds[] = {0x6969, 0x517B, 0xFF534D42, 0xFE534D42, 0x01021997, 0x5346414F};
  struct statfs fs;
  if (statfs(folder, &fs) != 0) return false;
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
    if ((uint32_t)fs.f_type == kinds[i]) return true;
  return false;
}

static void check_disk(doctor *d, const char *path) {
  struct statvfs fs;
  char *folder = existing_folder(path);
  if (folder == NULL || statvfs(folder, &fs) != 0) {
    findf(d, TM_FINDING_ERROR, "disk", "the folder of %s cannot be looked at: %s", path,
          strerror(errno));
    free(folder);
    return;
  }
  uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
  if (room < DISK_LOW)
    findf(d, room < DISK_LEAST ? TM_FINDING_ERROR : TM_FINDING_WARNING, "disk",
          "%" PRIu64 " MiB are free in %s: free space, or move the store (`tidemill store copy`)",
          room / MIB, folder);
  if (fs.f_files > 0 && fs.f_favail < 1000)
    findf(d, TM_FINDING_WARNING, "disk", "%" PRIu64 " files can still be made in %s: remove some",
          (uint64_t)fs.f_favail, folder);
  if (is_network(folder))
    findf(
        d, TM_FINDING_ERROR, "disk",
        "%s is on a network file system, whose locks cannot be relied on: use a local disk, or the "
        "backend redis or postgres",
        folder);
  free(folder);
}

/* ---- the store ---- */

static void on_finding(void *ud, tm_finding level, const char *text) {
  find(ud, level, "store", tm__slice(text));
}

static tm_status on_newest(void *ud, const tm_head *head) {
  if (tm__head_is_damaged(head)) return TM_OK;
  *(int64_t *)ud = head->created;
  return TM_ECANCELLED;
}

/* Ids, deadlines and leases are made of the clock: one that is behind orders new before old. */
static void check_clock(doctor *d, const tm_store_backend *b, tm_store_conn *conn) {
  int64_t newest = 0, now = tm__clock_now(&d->host->clock);
  tm_list_filter f = {.status = -1, .limit = 1};
  if (now < YEAR_2025) {
    find(d, TM_FINDING_ERROR, "clock",
         TM_S("the clock shows a year before 2025: set it, and let NTP keep it"));
    return;
  }
  (void)b->list(conn, &f, on_newest, &newest, NULL);
  if (newest > now + CLOCK_MS)
    findf(d, TM_FINDING_ERROR, "clock",
          "the newest conversation was begun %" PRId64 " s in the future: this clock is behind, or "
          "that of another host is ahead; let NTP keep both",
          (newest - now) / 1000);
}

/* ---- events ---- */

#define EVENTS_PAGE 100
#define MAX_NAMED   20 /* of records that cannot be read */

typedef struct outbox {
  doctor *d;
  int64_t dead, pending, damaged;
  int64_t oldest;   /* of those that are pending */
  tm_outgoing last; /* of the page */
  size_t count;     /* on it */
} outbox;

static tm_status on_event(void *ud, const tm_outgoing *event) {
  outbox *o = ud;
  char id[TM_EVENT_ID_SIZE];
  tm__event_id(id, event);
  o->count++;
  o->last = *event;
  if (event->dead_at > 0) {
    o->dead++;
  } else if (o->pending++ == 0 || event->created < o->oldest) {
    o->oldest = event->created;
  }
  if (event->tenant[0] == '\0' && o->damaged++ < MAX_NAMED)
    findf(o->d, TM_FINDING_ERROR, "events",
          "the record of event %s is damaged; the others go on; restore a backup to have it back",
          id);
  return TM_OK;
}

static tm_status count_events(outbox *o, const tm_store_backend *b, tm_store_conn *conn,
                              tm_error *err) {
  tm_outgoing_filter f = {.dead = -1, .limit = EVENTS_PAGE};
  tm_status status = TM_OK;
  o->count = EVENTS_PAGE;
  while (status == TM_OK && o->count == EVENTS_PAGE) {
    o->count = 0;
    status = b->outbox_list(conn, &f, on_event, o, err);
    memcpy(f.before, o->last.conversation, sizeof(f.before));
    f.before_revision = o->last.revision;
    f.before_index = o->last.index;
  }
  return status;
}

static tm_status check_outbox(doctor *d, const tm_store_backend *b, tm_store_conn *conn,
                              tm_error *err) {
  outbox o = {.d = d};
  tm_status status = count_events(&o, b, conn, err);
  int64_t age = tm__clock_now(&d->host->clock) - o.oldest;
  bool told = tm__config_text(d->host->config, "webhooks.url")[0] != '\0';
  if (o.dead > 0)
    findf(d, TM_FINDING_WARNING, "events",
          "given up: %" PRId64
          "; see `tidemill outbox list --status dead`, then `tidemill outbox retry`",
          o.dead);
  if (o.pending > 0 && !told)
    findf(d, TM_FINDING_WARNING, "events",
          "%" PRId64
          " wait to be delivered, and webhooks.url is not set: set it and webhooks.secret",
          o.pending);
  else if (o.pending > 0)
    findf(d, age > LATE_MS ? TM_FINDING_WARNING : TM_FINDING_INFO, "events",
          "%" PRId64 " wait to be delivered, the oldest for %" PRId64
          " s: see `tidemill outbox list`, and whether a server runs and the webhook answers",
          o.pending, age / 1000);
  return status;
}

/* ---- can every record be read, with the keys that are configured? ---- */

typedef struct records {
  doctor *d;
  const tm_store_backend *backend;
  tm_store_conn *conn;
  const tm_head *head;
  tm_buf plain;
  int64_t unreadable;
  tm_error why; /* of this one */
} records;

static tm_status on_row(void *ud, const tm_row *row) {
  records *r = ud;
  const tm_place at = {.tenant = tm__slice(r->head->tenant),
                       .conversation = tm__slice(r->head->id),
                       .revision = row->revision,
                       .kind = row->kind};
  const tm_stored stored = {row->flags, row->body};
  tm_slice plain;
  return tm__codec_decode(r->d->host->codec, &at, &stored, &r->plain, &plain, &r->why);
}

static tm_status on_record(void *ud, const tm_head *head) {
  records *r = ud;
  r->head = head;
  r->why = (tm_error){.status = TM_OK};
  if (tm__head_is_damaged(head))
    (void)tm__head_damaged(tm__slice(head->id), "the store", &r->why);
  else if (head->tip != 0)
    (void)r->backend->chain(r->conn, tm__slice(head->id), head->tip, false, on_row, r, NULL);
  if (!tm__codec_is_of_record(&r->why)) return TM_OK; /* the backend has looked for the rest */
  if (r->unreadable++ < MAX_NAMED) find_error(r->d, TM_FINDING_ERROR, "records", &r->why);
  return TM_OK;
}

static tm_status on_session_record(void *ud, const tm_session *s) {
  records *r = ud;
  if (!s->damaged) return TM_OK;
  (void)tm__session_damaged(s, "the store", &r->why);
  if (r->unreadable++ < MAX_NAMED) find_error(r->d, TM_FINDING_ERROR, "records", &r->why);
  return TM_OK;
}

static tm_status check_records(doctor *d, const tm_store_backend *b, tm_store_conn *conn,
                               tm_error *err) {
  records r = {.d = d, .backend = b, .conn = conn};
  const tm_list_filter all = {.status = -1, .limit = SIZE_MAX >> 1};
  tm_status status = b->list(conn, &all, on_record, &r, err);
  const tm_session_filter sessions = {.ended = -1, .limit = SIZE_MAX >> 1};
  if (status == TM_OK) status = b->sessions(conn, &sessions, on_session_record, &r, err);
  tm__buf_free(&r.plain);
  if (r.unreadable > MAX_NAMED)
    findf(d, TM_FINDING_ERROR, "records", "%lld records cannot be read, %d of them are named",
          (long long)r.unreadable, MAX_NAMED);
  return status;
}

static tm_status collect_tenant(void *ud, tm_slice tenant, int64_t wake_at) {
  tm_buf *names = ud;
  (void)wake_at;
  tm__buf_slice(names, tenant);
  tm__buf_byte(names, '\0');
  return tm__buf_ok(names) ? TM_OK : TM_ENOMEM;
}

/* What a store could not be looked at for. That of a tenant that is known has to be there. */
static void find_unopened(doctor *d, const tm_store_place *p, const char *tenant,
                          const tm_error *err) {
  bool absent = strcmp(err->code, "store.absent") == 0;
  if (absent && tenant[0] == '\0') {
    findf(d, TM_FINDING_INFO, "store", "there is none at %s yet: `tidemill serve` makes it",
          p->shown);
    if (tm__store_place_is_local(p)) check_disk(d, p->options.location);
  } else if (absent) {
    findf(d, TM_FINDING_ERROR, "store", "the store of tenant %s is missing: %s [%s]", tenant,
          err->message, err->code);
  } else {
    bool older = strcmp(err->code, "store.older") == 0;
    find_error(d, older ? TM_FINDING_WARNING : TM_FINDING_ERROR, "store", err);
  }
}

/* Opens the store of all (`tenant` "") or a tenant's own and lets its backend look. `names`: takes
 * the tenants; NULL: they are not wanted. */
static void inspect_store(doctor *d, const tm_store_place *p, const char *tenant, tm_buf *names) {
  tm_store *store = NULL;
  tm_store_conn *conn = NULL;
  tm_store_options o = p->options;
  tm_error err;
  o.tenant = tenant;
  o.opening = TM_STORE_AS_IS;
  tm_status status = p->backend->open(&store, &o, &err);
  if (status == TM_OK) status = p->backend->connect(&conn, store, TM_STORE_READER, &err);
  if (status == TM_OK) status = p->backend->inspect(conn, d->deep, on_finding, d, &err);
  if (status == TM_OK) check_clock(d, p->backend, conn);
  if (status == TM_OK) status = check_outbox(d, p->backend, conn, &err);
  if (status == TM_OK && d->deep) status = check_records(d, p->backend, conn, &err);
  if (status == TM_OK && names != NULL)
    status = p->backend->tenants(conn, TM_S(""), SIZE_MAX >> 1, collect_tenant, names, &err);
  if (status != TM_OK) find_unopened(d, p, tenant, &err);
  p->backend->disconnect(conn);
  p->backend->close(store);
}

static void check_tenants(doctor *d, const tm_store_place *p, const tm_buf *names) {
  for (size_t at = 0; d->deep && at < names->len; at += strlen(names->ptr + at) + 1)
    inspect_store(d, p, names->ptr + at, NULL);
}

static void check_store(doctor *d) {
  tm_store_place p;
  tm_error err;
  tm_buf names = {0};
  if (tm__store_place_configured(&p, d->host, &err) != TM_OK) {
    find_error(d, TM_FINDING_ERROR, "store", &err);
    return;
  }
  if (!p.backend->durable)
    find(d, TM_FINDING_WARNING, "store",
         TM_S("conversations are kept in memory and are gone when the host stops: set "
              "workflow_persistence.backend"));
  if (tm__store_place_exists(&p, &err) != TM_OK) {
    find_unopened(d, &p, "", &err);
  } else {
    inspect_store(d, &p, "", &names);
    check_tenants(d, &p, &names);
  }
  tm__buf_free(&names);
  tm__store_place_free(&p);
}

/* ---- scripts ---- */

static void check_writable(doctor *d, const char *path) {
  struct stat st;
  if (stat(path, &st) != 0 || (st.st_mode & 02) == 0) return;
  findf(d, TM_FINDING_ERROR, "scripts",
        "everybody may write %s, and what lies there is run: chmod o-w %s", path, path);
}

static void add_script_finding(doctor *d, tm_slice item) {
  tm_buf level = {0}, text = {0};
  (void)tm__json_get_text(item, "file", &text);
  tm__buf_printf(&text, ":%lld: ", (long long)tm__json_get_int(item, "line", 0));
  (void)tm__json_get_text(item, "text", &text);
  (void)tm__json_get_text(item, "level", &level);
  bool error = tm__slice_is(tm__buf_view(&level), "error");
  find(d, error ? TM_FINDING_ERROR : TM_FINDING_WARNING, "scripts", tm__buf_view(&text));
  tm__buf_free(&level);
  tm__buf_free(&text);
}

static void on_checked(void *ud, const tm_reply *reply) {
  doctor *d = ud;
  tm_json_walk w;
  tm_slice key, item;
  if (reply->status != TM_OK) {
    find_error(d, TM_FINDING_ERROR, "scripts", reply->error);
    return;
  }
  tm_slice json = {reply->json, reply->size};
  if (!tm__json_walk(&w, tm__json_get(json, "items"))) return;
  while (tm__json_next(&w, &key, &item))
    add_script_finding(d, item);
}

static void check_scripts(doctor *d) {
  const char *const *folders;
  size_t count = tm__config_list(d->host->config, "scripts", &folders);
  for (size_t i = 0; i < count; i++)
    check_writable(d, folders[i]);
  tm_scripts_check(d->host, NULL, 0, on_checked, d);
}

/* ---- address and limits ---- */

static bool is_loopback(const char *address) {
  return strncmp(address, "127.", 4) == 0 || strncmp(address, "[::1]", 5) == 0 ||
         strncmp(address, "localhost:", 10) == 0;
}

static void check_address(doctor *d) {
  const char *address = tm__config_text(d->host->config, "server.listen");
  if (is_loopback(address)) return;
  findf(d, TM_FINDING_WARNING, "address",
        "server.listen is %s: whoever reaches it may read and steer every conversation; listen on "
        "127.0.0.1 and let a proxy authenticate, or keep others out by a firewall",
        address);
}

static void check_limits(doctor *d) {
  struct rlimit files, core;
  int64_t wanted = tm__config_int(d->host->config, "server.connection_limit");
  if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max != RLIM_INFINITY &&
      files.rlim_max / 2 < (rlim_t)wanted)
    findf(d, TM_FINDING_WARNING, "limits",
          "%llu files may be open, which leaves %llu for connections of the %lld that "
          "server.connection_limit says: raise the limit (LimitNOFILE=, ulimit -Hn)",
          (unsigned long long)files.rlim_max, (unsigned long long)files.rlim_max / 2,
          (long long)wanted);
  if (getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur != 0)
    find(d, TM_FINDING_WARNING, "limits",
         TM_S("a crash may leave a core file with conversations and keys: set ulimit -c 0 "
              "(LimitCORE=0)"));
  if (geteuid() == 0)
    find(d, TM_FINDING_INFO, "limits",
         TM_S("this runs as root: the server needs no rights but to "
              "its files; give it a user of its own"));
}

/* ---- all of it ---- */

static void add_report(tm_buf *out, doctor *d) {
  tm__buf_text(out, "{\"items\":[");
  tm__buf_slice(out, tm__buf_view(&d->items));
  if (!tm__buf_ok(&d->items)) (void)tm__buf_room(out, SIZE_MAX / 2); /* fails as well */
  tm__buf_byte(out, ']');
  tm__json_member_int(out, "errors", d->errors);
  tm__json_member_int(out, "warnings", d->warnings);
  tm__buf_byte(out, '}');
}

void tm_doctor(const tm_options *options, int deep, tm_reply_fn fn, void *ud) {
  doctor d = {.options = options, .deep = deep != 0};
  tm_buf out = {0};
  if (load_configuration(&d)) {
    check_secrets(&d);
    check_keys(&d);
    check_store(&d);
    check_scripts(&d);
    check_address(&d);
    check_limits(&d);
  }
  add_report(&out, &d);
  tm__host_answer(fn, ud, &out);
  tm_host_free(d.host);
  tm__buf_free(&d.items);
  tm__buf_free(&out);
}
