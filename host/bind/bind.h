/* bind.h - what the files of host/bind share: a state's insides, the door, operations, errors.
 *
 * Functions that take a lua_State may raise; those that take only a tm_vm never do.
 */
#ifndef TM_BIND_BIND_H
#define TM_BIND_BIND_H

#include <jansson.h>
#include <lauxlib.h>
#include <lua.h>

#include "bind/crowd.h"
#include "bind/idmap.h"
#include "bind/vm.h"

typedef struct tm_op tm_op;
typedef struct tm_run tm_run;

typedef enum tm_trip { /* why nothing may run any more until the door is reached */
                       TM_TRIP_NONE,
                       TM_TRIP_CPU,
                       TM_TRIP_TABLE,
                       TM_TRIP_CROWD,
                       TM_TRIP_TEXT,
                       TM_TRIP_STACK,
                       TM_TRIP_STEP_MEMORY,
                       TM_TRIP_STATE_MEMORY,
                       TM_TRIP_HOST_MEMORY, /* no limit: the machine has no more */
} tm_trip;

/* What the states of one worker share. While an entry is under way nothing else enters. */
typedef struct tm_door {
  int depth;
  tm_op *ready, **ready_end; /* operations that ended while an entry was under way */
  /* After an entry that belongs to `run`; may enter again, end the run and free its state. */
  void (*after)(void *ud, tm_run *run, const tm_error *err);
  /* True: the turn must rest; what it waits for is kept until it is woken. NULL: never. */
  bool (*rests)(void *ud, tm_run *run);
  /* The journal has answered the last that a state had to be kept for. NULL: nobody asks. */
  void (*quiet)(void *ud);
  void *ud;
} tm_door;

/* ---- JSON (json_encode.c, json_decode.c) ---- */
typedef struct tm_key {
  const char *ptr;
  size_t len;
  int at; /* stack index of the key */
} tm_key;

typedef struct tm_json {
  tm_buf text;  /* what host.json.encode makes */
  json_t *tree; /* what is being pushed; freed with the entry at the latest */
  tm_key *keys; /* scratch for sorting, used as a stack */
  size_t key_count, key_cap;
  const void *array_mark, *raw_mark; /* identities of the two metatables */
} tm_json;

#define TM_DRAFT_PARTS 7
#define TM_TEXT_SIZES  13

struct tm_vm {
  lua_State *L;
  tm_vm_options o;
  tm_door *door, own_door;
  size_t bytes, ceiling; /* of the state: now, and at most during this entry */
  size_t arriving;       /* bytes of answers, outside of Lua */
  size_t blocks;         /* their number: what a collection takes time by */
  size_t block_bytes;    /* of limits.memory, for each block that fits in; 0: any number */
  size_t entered, peak;  /* bytes at the beginning of this entry; the most since asked (usage) */
  size_t collected;      /* bytes after room was made for a buffer in this entry; 0: not yet */
  size_t refused;        /* size of the allocation that was refused last; 0: none since */
  size_t names;          /* of the table that was refused last */
  bool writes;           /* a function of C puts something into a table of a script */
  size_t fresh, stack;   /* sizes: of a block that was allocated just now; of a deep stack; or 0 */
  tm_trip refusal;       /* by which limit something was refused in this entry, or none */
  int64_t budget_ms;     /* of this entry; 0: none */
  bool loads;            /* this entry loads a system */
  int64_t began_us;      /* CPU time of the thread; 0: it has run for a millisecond at most */
  int64_t looked_us;     /* monotonic: when that was asked last, or the entry's first look; or 0 */
  int per_look;          /* instructions, or units of work, between two looks */
  size_t work;           /* units charged since the last look */
  tm_trip tripped;
  char where[112];      /* the script's line at that moment, or "" */
  char refused_at[112]; /* likewise, when memory was refused last */
  lua_State *running;   /* the coroutine that runs; NULL: outside of entries */
  uintptr_t c_stack;    /* where the C stack of the thread was when this entry began */
  tm_idmap texts;       /* long texts, by their address; how many of which size (see limits.c): */
  size_t texts_of[TM_TEXT_SIZES];
  size_t texts_over; /* longer than any two may be */
  size_t named;      /* names that tables have room for, but for those of small ones */
  size_t large;      /* blocks over which a single instruction may take long */
  tm_error failure;  /* filled by the door's message handler */
  int dispatch;      /* reference in the registry */
  tm_run *run;       /* whose entry this is, or NULL */
  uint64_t last_id;
  tm_idmap runs, ops; /* by the id that Lua knows */
  size_t op_count;    /* timers and requests of all turns */
  tm_op *orphans;     /* journal operations whose turn has ended */
  tm_json json;
  tm_buf parts[TM_DRAFT_PARTS];
  tm_crowd crowd;
};

tm_vm *tm__vm(lua_State *L);
/* How much of limits.memory is taken, by bytes, or by how long it takes to collect. */
size_t tm__vm_weight(const tm_vm *vm);
void tm__vm_collect(tm_vm *vm); /* what nothing refers to; no limit has tripped any more */
/* The options' allocator; never raises; NULL when out of memory. */
tm_realloc_fn tm__allocator(const tm_vm_options *o);
void *tm__xalloc(tm_vm *vm, size_t size);
void tm__xfree(tm_vm *vm, void *p, size_t size);
/* For a state that tm__vm_new did not make: tests run host.json and others in a plain Lua. */
void tm__vm_adopt(tm_vm *vm, lua_State *L);
void tm__vm_release(tm_vm *vm); /* what adopt and the modules acquired */

/* ---- the door (vm.c) ---- */
typedef int (*tm_push_fn)(lua_State *L, void *ud); /* pushes arguments, returns how many */
typedef struct tm_entry {
  uint64_t id;
  const char *event;
  tm_push_fn push; /* NULL: no arguments */
  void *ud;
  tm_buf *out; /* NULL: results are dropped; else the text that dispatch returns */
} tm_entry;
tm_status tm__vm_enter(tm_vm *vm, const tm_entry *e, tm_error *err);
/* The same for an entry that belongs to a turn of an executor; then calls door->after. */
void tm__vm_dispatch(tm_vm *vm, tm_run *run, const tm_entry *e);

/* ---- what turns use (mod_usage.c) ---- */
/* An entry of vm->run begins, ends. */
void tm__usage_begin(tm_vm *vm);
void tm__usage_end(tm_vm *vm);

/* ---- limits (limits.c) ---- */
void tm__limits_start(tm_vm *vm, int64_t budget_ms, size_t memory);
void tm__limits_install(lua_State *L);          /* the hook, and guards over the library */
void tm__limits_place(tm_vm *vm, lua_State *L); /* notes where L stands */
#define TM_COUNTED_BYTES 384 /* a smaller block holds few names, and no long text or stack */
tm_status tm__limits_error(tm_vm *vm, tm_error *err); /* what tripped, in words */
/* Around what may run a script's code: before and after it, raise if a limit has tripped; `ran` is
 * where it was. */
void tm__limits_before(lua_State *L);
void tm__limits_after(lua_State *L, lua_State *ran);
void tm__limits_turn_to(tm_vm *vm, lua_State *L); /* from now on L is what runs */
/* For C that loops on behalf of a script: no hook runs in there. A unit is about as much work as
 * one instruction. False: a limit has tripped, stop now; spend raises instead. */
#define TM_PER_LOOK 1000
bool tm__limits_charge(tm_vm *vm, size_t units);
void tm__limits_check(lua_State *L); /* raises if a limit has tripped, or trips now */
/* Before a luaL_Buffer of that size: it asks for memory once, and raises while there is garbage. */
void tm__limits_room(lua_State *L, size_t size);
static inline void tm__limits_spend(lua_State *L, size_t units) {
  tm_vm *vm = *(tm_vm **)lua_getextraspace(L);
  vm->work += units;
  if (vm->work >= (size_t)vm->per_look || vm->tripped != TM_TRIP_NONE) tm__limits_check(L);
}
/* A block of Lua's was made, grew, shrank or went. */
void tm__limits_block(tm_vm *vm, size_t old_size, size_t new_size);
/* Why a text of that size may not be made, or TM_TRIP_NONE. */
tm_trip tm__limits_refuse_text(tm_vm *vm, size_t size);
/* A text was made, having been asked for; a block, perhaps a text, went. */
void tm__limits_text(tm_vm *vm, const void *text, size_t size);
void tm__limits_gone(tm_vm *vm, const void *block, size_t size);
/* May a table get a block for its names now? */
bool tm__limits_names(tm_vm *vm, size_t size);
int64_t tm__limits_used_us(const tm_vm *vm); /* CPU time of this entry; 0: a short one */
/* The host itself is short of memory, which is no fault of a step: raises up to the door, so that
 * no script takes it for an error of its own. */
void tm__limits_no_memory(lua_State *L);

void tm__libs_open(lua_State *L); /* libs.c: the libraries the runtime has, and require */

/* ---- folders of scripts (folder.c) ---- */

/* Appends a script file: a regular file within `dir`, at most 1 MiB of UTF-8 text without NUL. */
tm_status tm__folder_read(const char *dir, tm_slice path, tm_buf *out, tm_error *err);

/* ---- errors (error.c) ---- */
int tm__push_fail(lua_State *L, const tm_error *err);   /* nil, error table; returns 2 */
void tm__push_error(lua_State *L, const tm_error *err); /* TM_ENOMEM: tm__limits_no_memory */
int tm__raise(lua_State *L, const tm_error *err);
/* The error value at idx as a tm_error: table fields, or text with the traceback of L. */
void tm__take_error(lua_State *L, int idx, tm_error *err);

/* ---- JSON ---- */
void tm__json_open(lua_State *L); /* makes the marks; before any use */
/* Appends the value at idx; `name` begins the key path of errors; `list`: an empty table is []. */
bool tm__json_encode(lua_State *L, int idx, const char *name, bool list, tm_buf *out,
                     tm_error *err);
/* Pushes on success. Trusted text is read with SIZE_MAX. */
tm_status tm__json_decode(lua_State *L, tm_slice text, size_t max_values, tm_error *err);
tm_status tm__json_restore(lua_State *L, tm_slice text, tm_error *err); /* canonical text, fast */
void tm__json_push_null(lua_State *L);

/* ---- operations in flight (ops.c) ---- */
typedef enum tm_op_kind { TM_OP_TIMER, TM_OP_HTTP, TM_OP_JOURNAL, TM_OP_MESSAGES } tm_op_kind;
struct tm_op {
  tm_vm *vm;
  tm_run *run; /* NULL: its turn has ended */
  uint64_t id;
  uint64_t handle; /* of the timer or the request */
  int body;        /* what the request sends: a reference in the registry; 0: nothing */
  size_t received; /* bytes of an answer: they count as what its turn holds */
  tm_messages_read *reading;
  tm_op_kind kind;
  bool waits;        /* over, but not told yet: in the door's list, or in its run's */
  bool failed;       /* waits: with error */
  tm_status refused; /* why what came in found no room, or TM_OK */
  tm_error *error;
  tm_op *next, **link; /* in run->ops or vm->orphans */
  tm_op *next_ready;
};
/* A turn that runs in a state. The executor owns it. */
struct tm_run {
  uint64_t id, view_id; /* in Lua; in the journal */
  tm_vm *vm;            /* NULL: not started */
  tm_turn *turn;        /* NULL: ended */
  tm_op *ops;
  tm_op *parked; /* of those, what is over and is told when the turn has rested */
  struct tm_lua *lua;
  struct tm_system *system;
  struct tm_system *awaited; /* is being loaded; NULL: it waits for none */
  tm_run *next;     /* in the executor's list of what waits for the door, or in the system's */
  size_t held;      /* bytes that its entries left behind: what it keeps while it waits */
  bool metered;     /* somebody asks what it uses: */
  int64_t cpu_us;   /* CPU time of the entries that are over */
  int64_t cpu_from; /* of the thread, when this entry began */
  size_t peak;      /* the most bytes it has held since that was asked */
  size_t op_count;  /* timers and requests */
  size_t slot;      /* of its conversation, in the executor's pace */
  uint64_t timer;   /* that ends its rest; 0: it does not rest */
  bool waits;       /* is in that list */
  bool lost;        /* the journal took the turn away */
  bool broken;      /* an entry broke off; the runtime has not dealt with it yet */
  tm_error failure; /* broken: why */
};
int tm__push_turn(lua_State *L,
                  void *run); /* a tm_push_fn: the turn as a fresh table (turn_table.c) */
/* For the turn whose entry this is. NULL: outside a turn, no worker, or out of memory; `err` says
 * which. */
tm_op *tm__op_new(tm_vm *vm, tm_op_kind kind, tm_error *err);
/* So many bytes of an answer have come, and are kept outside of Lua until the operation is over.
 * TM_ETOOLARGE: more than its turn may hold; TM_EUNAVAILABLE: more than may arrive for all turns of
 * the state at once. Never raises. */
#define TM_ARRIVING 4 /* times limits.memory */
tm_status tm__op_receive(tm_op *op, size_t bytes);
void tm__op_free(tm_op *op); /* it never started, or it is over */
bool tm__op_cancel(tm_vm *vm, uint64_t id);
void tm__op_done(tm_op *op, tm_push_fn push, void *ud); /* ends and frees it, tells Lua */
void tm__op_failed(tm_op *op, const tm_error *err);
/* Ends it without values; Lua is told when the door is free and the turn may go on. */
void tm__op_ended(tm_op *op, const tm_error *err);
void tm__op_journal_done(void *ud, const tm_error *err); /* a tm_turn_done_fn; ud is the tm_op */
void tm__ops_ready(tm_door *door);                       /* tells Lua what became ready meanwhile */
void tm__ops_wake(tm_run *run); /* makes ready what was kept while the turn rested */
/* Ends all operations of a turn: timers and requests are cancelled; what the journal still works at
 * is kept until it answers, or forgotten when the turn is lost. */
void tm__ops_end(tm_run *run);

#define MODULE(name) int tm__open_##name(lua_State *L);
#include "bind/modules.def"
#undef MODULE

#endif
