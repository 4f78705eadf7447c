/* vm.h - a Lua state with limits, and the one protected door into it.
 *
 * lua_pcall from C stands in vm.c only, lua_resume in lib_coroutine.c. A state belongs to one
 * thread. Memory is bounded for the state and for the step that runs; CPU time by a count hook that
 * no pcall in a script can swallow: once over budget it keeps raising until the door is reached.
 */
#ifndef TM_BIND_VM_H
#define TM_BIND_VM_H

#include "core/buf.h"
#include "core/err.h"
#include "core/log.h"
#include "journal/bundle.h"
#include "journal/journal.h"
#include "loop/worker.h"
#include "net/http_client.h"

typedef struct tm_vm tm_vm;

typedef struct tm_vm_limits {
  size_t memory;            /* bytes of the state; 0 anywhere here: no limit */
  size_t step_memory;       /* bytes a step may add, and hold while it waits */
  int64_t cpu_slice_ms;     /* CPU time of one entry through the door */
  int64_t load_ms;          /* CPU time of loading a system */
  size_t operations;        /* timers and requests in flight, of one turn */
  size_t system_operations; /* of all turns in a state */
} tm_vm_limits;

typedef struct tm_vm_options { /* copied; what it points to must outlive the state */
  tm_vm_limits limits;
  const tm_log *log;
  tm_clock clock;
  tm_worker *worker;       /* NULL: nothing asynchronous (check, render) */
  tm_http_client *client;  /* likewise */
  tm_registry *registry;   /* of an executor: which versions are current; NULL: all of them */
  size_t tenant_states;    /* of an executor: states at most, each of one tenant; 0: tenants share
                              those of all */
  const char *config_json; /* what host.config.get() gives the runtime: an object; NULL: {} */
  /* Reads one script file by its path within the system's folder, as host.file.read; appends to
   * out. TM_ENOTFOUND when there is none. */
  tm_status (*read_file)(void *ud, tm_slice path, tm_buf *out, tm_error *err);
  void *read_ud;
  const char *root; /* for chunk names: "scripts/customer_service" */
  void *(*alloc)(void *ud, void *ptr, size_t old_size, size_t new_size); /* NULL: realloc/free */
  void *alloc_ud;
} tm_vm_options;

/* Makes the state, opens the libraries and host.*, loads the embedded runtime. */
tm_status tm__vm_new(tm_vm **out, const tm_vm_options *o, tm_error *err);
void tm__vm_free(tm_vm *vm); /* cancels its operations; NULL allowed */

/* dispatch(0, event, args...) with text arguments; the text it returns is appended to `out` (which
 * may be NULL). Errors are TM_ESCRIPT with a traceback's first lines, TM_ELIMIT for limits. */
tm_status tm__vm_call(tm_vm *vm, const char *event, const tm_slice *args, size_t count, tm_buf *out,
                      tm_error *err);

/* ---- loading systems (loader.c) ---- */

/* Loads the system in folder `dir` (its name is the folder's name) in a state of its own, and makes
 * a bundle of every file it read. Errors: script.* with file:line. */
tm_status tm__bundle_load(tm_bundle **out, const char *dir, const tm_vm_options *o, tm_error *err);

/* Checks the system in folder `dir` without running it; appends {"items":[finding,...]}. An error
 * means that it could not be looked at, not that it has findings. */
tm_status tm__system_check(const char *dir, const tm_vm_options *o, tm_buf *json, tm_error *err);

/* ---- the executor of one worker (executor.c) ---- */
typedef struct tm_lua tm_lua; /* a state per system version; see tm_vm_options.tenant_states */
tm_status tm__lua_new(tm_lua **out, const tm_vm_options *o,
                      tm_error *err); /* read_file, root: unused */
tm_executor tm__lua_executor(tm_lua *l);
/* Worker thread. Makes a state for the version beside the loop unless there is one, so that no turn
 * has to wait for it. `ready` is called once on the worker's thread, perhaps before this returns;
 * err NULL: the state is there. Where each tenant has its own, one is made for the first that
 * comes, and none while all that there may be are in use. */
typedef struct tm_lua_wait {
  struct tm_lua_wait *next; /* internal */
  void (*ready)(struct tm_lua_wait *w, const tm_error *err);
} tm_lua_wait;
void tm__lua_prepare(tm_lua *l, tm_bundle *b, tm_lua_wait *w);
size_t tm__lua_turns(const tm_lua *l);  /* how many have not ended; worker thread */
size_t tm__lua_states(const tm_lua *l); /* loaded, or being loaded; worker thread */
void tm__lua_free(tm_lua *l);           /* worker thread; NULL allowed */

#endif
