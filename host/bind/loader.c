/* loader.c - a folder of scripts becomes a bundle: loaded once in a state of its own, and every
 * file that was read is part of the version.
 */
#include <stdlib.h>
#include <string.h>

#include "bind/bind.h"
#include "core/id.h"
#include "core/json.h"

#define MAX_FILES   256
#define MAX_TOTAL   (8u << 20)
#define VERSION_LEN 16

typedef struct source {
  char *path, *text; /* owned */
  size_t size;
} source;

typedef struct loader {
  char *dir;        /* owned; without trailing slashes */
  const char *name; /* its last part */
  source files[MAX_FILES];
  size_t count, total;
  tm_vm *vm;
} loader;

/* ---- reading ---- */

static const source *known(const loader *l, tm_slice path) {
  for (size_t i = 0; i < l->count; i++)
    if (tm__slice_is(path, l->files[i].path)) return &l->files[i];
  return NULL;
}

static tm_status remember(loader *l, tm_slice path, tm_buf *text, tm_error *err) {
  if (l->count == MAX_FILES)
    return tm__fail(err, TM_ELIMIT, "script.files", "%s has more than %d files", l->dir, MAX_FILES);
  if (text->len > MAX_TOTAL - l->total)
    return tm__fail(err, TM_ELIMIT, "script.files", "the files of %s have more than 8 MiB", l->dir);
  source s = {.path = tm__slice_dup(path), .size = text->len};
  s.text = tm__buf_take(text);
  if (s.path == NULL || s.text == NULL) {
    free(s.path);
    free(s.text);
    return tm__fail_memory(err, "a script's text");
  }
  l->files[l->count++] = s;
  l->total += s.size;
  return TM_OK;
}

/* A file that is asked for again is what it was, whatever the disk says by now. */
static tm_status read_source(void *ud, tm_slice path, tm_buf *out, tm_error *err) {
  loader *l = ud;
  const source *s = known(l, path);
  if (s == NULL) {
    tm_buf text = {0};
    tm_status st = tm__folder_read(l->dir, path, &text, err);
    if (st == TM_OK) st = remember(l, path, &text, err);
    tm__buf_free(&text);
    if (st != TM_OK) return st;
    s = &l->files[l->count - 1];
  }
  tm__buf_add(out, s->text, s->size);
  return TM_OK;
}

/* ---- the folder ---- */

static bool is_name(const char *name) {
  size_t len = strlen(name);
  for (size_t i = 0; i < len; i++) {
    char c = name[i];
    bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!alnum && c != '_' && c != '-') return false;
  }
  return len > 0 && len <= 64;
}

static tm_status open_folder(loader *l, const char *dir, tm_error *err) {
  while (strncmp(dir, "./", 2) == 0)
    dir += 2;
  size_t len = strlen(dir);
  while (len > 1 && dir[len - 1] == '/')
    len--;
  l->dir = tm__slice_dup((tm_slice){dir, len});
  if (l->dir == NULL) return tm__fail_memory(err, "a path");
  const char *slash = strrchr(l->dir, '/');
  l->name = slash != NULL ? slash + 1 : l->dir;
  if (is_name(l->name)) return TM_OK;
  return tm__fail(err, TM_EINVAL, "script.name",
                  "%s: a system is named by its folder, in at most 64 letters, digits, _ and -",
                  l->dir);
}

static void close_folder(loader *l) {
  tm__vm_free(l->vm);
  for (size_t i = 0; i < l->count; i++) {
    free(l->files[i].path);
    free(l->files[i].text);
  }
  free(l->dir);
  free(l);
}

static tm_status run(loader *l, const tm_vm_options *o, const char *event, tm_buf *out,
                     tm_error *err) {
  tm_vm_options own = *o;
  own.worker = NULL;
  own.client = NULL;
  own.read_file = read_source;
  own.read_ud = l;
  own.root = l->dir;
  tm_status st = tm__vm_new(&l->vm, &own, err);
  tm_slice name = tm__slice(l->name);
  if (st == TM_OK) st = tm__vm_call(l->vm, event, &name, 1, out, err);
  if (st == TM_ELIMIT) st = TM_ESCRIPT; /* a fault of the script, not of who asks */
  if (st != TM_OK && err != NULL) err->status = st;
  return st;
}

static tm_status open_and_run(loader **out, const char *dir, const tm_vm_options *o,
                              const char *event, tm_buf *text, tm_error *err) {
  loader *l = *out = calloc(1, sizeof(*l));
  if (l == NULL) return tm__fail_memory(err, "a system");
  tm_status st = open_folder(l, dir, err);
  return st == TM_OK ? run(l, o, event, text, err) : st;
}

/* ---- the bundle ---- */

static int path_order(const void *a, const void *b) {
  return strcmp(((const source *)a)->path, ((const source *)b)->path);
}

static void make_version(loader *l, char out[VERSION_LEN + 1]) {
  tm_slice parts[MAX_FILES * 2];
  qsort(l->files, l->count, sizeof(*l->files), path_order);
  for (size_t i = 0; i < l->count; i++) {
    parts[2 * i] = tm__slice(l->files[i].path);
    parts[2 * i + 1] = (tm_slice){l->files[i].text, l->files[i].size};
  }
  tm__digest_hex(out, VERSION_LEN, parts, l->count * 2);
}

static void write_sources(const loader *l, tm_buf *out) {
  tm__buf_text(out, "{\"files\":{");
  for (size_t i = 0; i < l->count; i++)
    tm__json_member(out, l->files[i].path, (tm_slice){l->files[i].text, l->files[i].size});
  tm__buf_text(out, "},\"root\":");
  tm__json_string(out, tm__slice(l->dir));
  tm__buf_byte(out, '}');
}

static tm_status add_version(tm_buf *out, tm_slice description, const char *version,
                             tm_error *err) {
  json_t *v = NULL;
  tm_status st = tm__json_parse(&v, description, TM_JSON_DEPTH, err);
  if (st != TM_OK) return st;
  if (!json_is_object(v))
    st = tm__fail(err, TM_ESCRIPT, "script.description", "the runtime described no system");
  else if (json_object_set_new(v, "version", json_string(version)) != 0)
    st = tm__fail_memory(err, "a system's description");
  else
    tm__json_value(out, v);
  json_decref(v);
  return st;
}

static tm_status make_bundle(tm_bundle **out, loader *l, tm_slice described, tm_error *err) {
  char version[VERSION_LEN + 1];
  tm_buf sources = {0}, description = {0};
  make_version(l, version);
  write_sources(l, &sources);
  tm_status st = add_version(&description, described, version, err);
  if (st == TM_OK && tm__buf_ok(&sources) && tm__buf_ok(&description))
    *out = tm__bundle_new(tm__slice(l->name), tm__slice(version), tm__buf_view(&sources),
                          tm__buf_view(&description));
  if (st == TM_OK && *out == NULL) st = tm__fail_memory(err, "a system");
  tm__buf_free(&sources);
  tm__buf_free(&description);
  return st;
}

tm_status tm__bundle_load(tm_bundle **out, const char *dir, const tm_vm_options *o, tm_error *err) {
  loader *l;
  tm_buf described = {0};
  *out = NULL;
  tm_status st = open_and_run(&l, dir, o, "load", &described, err);
  if (st == TM_OK) st = make_bundle(out, l, tm__buf_view(&described), err);
  tm__buf_free(&described);
  if (l != NULL) close_folder(l);
  return st;
}

tm_status tm__system_check(const char *dir, const tm_vm_options *o, tm_buf *json, tm_error *err) {
  loader *l;
  tm_status st = open_and_run(&l, dir, o, "check", json, err);
  if (l != NULL) close_folder(l);
  return st;
}
