/* executor.h - what executor.c (turns) and systems.c (the states they run in) share. */
#ifndef TM_BIND_EXECUTOR_H
#define TM_BIND_EXECUTOR_H

#include "bind/bind.h"
#include "bind/pace.h"

typedef struct tm_system {
  tm_beside job; /* first: while it loads */
  struct tm_system *next;
  tm_lua *lua; /* NULL: given up while it loads */
  tm_vm_options o;
  tm_bundle *bundle;
  tm_vm *vm;                 /* NULL: not loaded */
  char *root;                /* owned; NULL: none */
  size_t running, collected; /* turns; bytes after the last collection */
  uint64_t used, seen;       /* its last use, as a count of all; that at the last look */
  bool loading, spent;       /* spent: too full to go on, freed when nothing runs in it */
  tm_error failure;          /* of loading; status TM_OK: none */
  tm_run *first;             /* newest first: they wait for it to be loaded */
  tm_lua_wait *waits;        /* likewise */
} tm_system;

struct tm_lua {
  tm_vm_options o;
  tm_door door;
  tm_system *systems; /* newest first */
  tm_idmap runs;      /* by the id that the journal knows */
  tm_run *first, **end;
  bool draining;
  uint64_t uses;
  uint64_t look; /* timer: states of old versions that nothing used meanwhile are closed; 0: none */
  tm_pace pace;
};

/* ---- systems.c ---- */

/* The state that `run` is to run in. NULL with err->status TM_OK: it is being loaded and `run`
 * waits for it, until tm__system_loaded; otherwise it could not be had. */
tm_system *tm__system_for(tm_lua *l, tm_run *run, tm_error *err);
void tm__system_unwait(tm_run *run); /* it waits no more */
void tm__systems_end(tm_lua *l);     /* frees all */
/* A turn has left it; may free it. */
void tm__system_leave(tm_system *s);
/* A turn has dropped so many bytes: worth a collection before it is called full. */
void tm__system_lighter(tm_system *s, size_t bytes);
/* After an entry: there is no room left for a whole step, even after a collection. */
bool tm__system_full(tm_system *s);
/* Of the turns that wait for the outside, the one that holds most; NULL: none holds much. */
tm_run *tm__system_greediest(const tm_system *s);
tm_run *tm__system_unbroken(const tm_system *s); /* some turn that runs and has not failed yet */
void tm__system_free(tm_system *s);              /* one that is loading: as soon as it can */
/* Tells whoever had it prepared; `err` NULL: it is there. */
void tm__system_tell(tm_system *s, const tm_error *err);

/* ---- executor.c ---- */
void tm__system_loaded(tm_lua *l, tm_system *s); /* or not: s->failure says why */

#endif
