/* executor.h - what executor.c (turns), systems.c (the states they run in) and rooms.c (how many of
 * those there are where each tenant has its own) share. */
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
  char tenant[65];           /* "": of all; where each has its own, nobody's yet */
  tm_vm *vm;                 /* NULL: not loaded */
  char *root;                /* owned; NULL: none */
  size_t running, collected; /* turns, also those it is kept for; weight as last collected */
  uint64_t used, seen;       /* its last use, as a count of all; that at the last look */
  bool queued, loading;      /* queued: there is no room for it yet */
  bool spent, gave_way;      /* spent: takes no more turns, freed when nothing runs in it; too full
                                to go on, or gave_way: others wait for its room */
  size_t share;              /* turns that it took while others waited for room */
  struct tm_system *behind;  /* queued: the next one */
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
  size_t states; /* loaded, or being loaded */
  tm_system *queue, **queue_end; /* of states that there was no room for: oldest first */
  bool ending;
  tm_pace pace;
};

/* ---- systems.c ---- */

/* The state that `run` is to run in. NULL with err->status TM_OK: it is being loaded and `run`
 * waits for it, until tm__system_loaded; otherwise it could not be had. */
tm_system *tm__system_for(tm_lua *l, tm_run *run, tm_error *err);
void tm__system_unwait(tm_run *run); /* it waits no more */
void tm__systems_end(tm_lua *l);     /* frees all */
/* A turn has left it; may free it, or another one that nothing runs in. */
void tm__system_leave(tm_system *s);
/* No turn that has ended waits for the journal in some state any more: likewise. */
void tm__systems_quiet(tm_lua *l);
/* A turn has dropped so many bytes: worth a collection before it is called full. */
void tm__system_lighter(tm_system *s, size_t bytes);
/* After an entry: there is no room left for a whole step, even after a collection. */
bool tm__system_full(tm_system *s);
/* Of the turns that wait for the outside, the one that holds most; NULL: none holds much, or it is
 * not bytes that the state is full of. */
tm_run *tm__system_greediest(const tm_system *s);
tm_run *tm__system_unbroken(const tm_system *s); /* some turn that runs and has not failed yet */
void tm__system_free(tm_system *s);              /* one that is loading: as soon as it can */
/* Tells whoever had it prepared; `err` NULL: it is there. */
void tm__system_tell(tm_lua_wait *waits, const tm_error *err);
tm_lua_wait *tm__system_take_waits(tm_system *s); /* whoever has it prepared; the caller's */
bool tm__system_idle(const tm_system *s);         /* loaded, and nothing would miss it */

/* ---- rooms.c ---- */
void tm__rooms_wait(tm_system *s);  /* a new one: until there is room for it */
void tm__rooms_leave(tm_system *s); /* it is going: loaded or not */
/* Has what waits loaded, as far as there is room; may free states that nothing runs in. */
void tm__rooms_go_on(tm_lua *l);
/* One more could only have room when others are no longer in use. */
bool tm__rooms_full(const tm_lua *l);
/* False: a further turn has to wait, for others wait longer; the state gives way to them. */
bool tm__rooms_share(tm_system *s);

/* ---- executor.c ---- */
void tm__system_loaded(tm_lua *l, tm_system *s); /* or not: s->failure says why */

#endif
