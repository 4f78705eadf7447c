/* alloc.h - the test's own malloc: it counts, and fails the allocation that a sweep asks for.
 *
 * It stands in front of the C library's for the whole program, so what the libraries below us
 * allocate is swept as well. An allocation is known by its path, a hash of the call stack: threads
 * make the order of allocations differ from run to run, not who makes them.
 */
#ifndef TEST_MEMORY_ALLOC_H
#define TEST_MEMORY_ALLOC_H

#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ALLOC_OWNED 0 /* a sanitizer's malloc cannot be stood in front of */
#else
#define ALLOC_OWNED 1
#endif

#define ALLOC_POINTS (1u << 19)
#define ALLOC_FRAMES 64

typedef enum alloc_mode {
  ALLOC_REST,   /* nothing but counting what lives */
  ALLOC_RECORD, /* notes the path of each allocation */
  ALLOC_ONE,    /* fails the target */
  ALLOC_FROM,   /* fails the target and whatever comes after it */
} alloc_mode;

typedef struct alloc_point {
  uint64_t path; /* 0: whatever allocation comes at this place */
  uint32_t at;   /* how many came before it */
} alloc_point;

typedef struct range {
  uintptr_t from, to;
} range;

static struct {
  _Atomic int mode;
  _Atomic uint32_t count; /* since armed */
  _Atomic int64_t live; /* blocks; without those of the dynamic linker: it keeps some per thread */
  alloc_point target;
  uint32_t look_from;
  atomic_bool hit;
  void *frames[ALLOC_FRAMES]; /* of what was failed first */
  int depth;
  range linker, lua, uv;
  _Atomic uint32_t spared; /* see may_fail_realloc */
  range root;              /* code of the test: a stack counts up to there */
} alloc;

static alloc_point alloc_points[ALLOC_POINTS];
static __thread bool alloc_inside; /* what looks at the stack, or belongs to the test */

/* ---- paths ---- */

static bool is_in(const range *r, const void *p) {
  return (uintptr_t)p >= r->from && (uintptr_t)p < r->to;
}

static int find_range(struct dl_phdr_info *info, size_t size, void *ud) {
  (void)size, (void)ud;
  range *r = strstr(info->dlpi_name, "ld-linux") != NULL ? &alloc.linker
             : strstr(info->dlpi_name, "liblua") != NULL ? &alloc.lua
             : strstr(info->dlpi_name, "libuv") != NULL  ? &alloc.uv
                                                         : NULL;
  for (int i = 0; r != NULL && i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    uintptr_t from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    if (r->from == 0) r->from = from;
    r->to = from + info->dlpi_phdr[i].p_memsz;
  }
  return 0;
}

static void alloc_init(void) {
  void *frames[4];
  (void)backtrace(frames, 4); /* loads what it needs */
  (void)dl_iterate_phdr(find_range, NULL);
}

static bool is_among(void *const *kept, int count, const void *frame) {
  for (int i = count - 1; i >= 0 && i >= count - 6; i--)
    if (kept[i] == frame) return true;
  return false;
}

/* Recursion is one path however deep, and so is whatever Lua does between two functions of C. */
static uint64_t path_of(void *const *frames, int depth) {
  void *kept[ALLOC_FRAMES];
  int count = 0;
  bool in_lua = false;
  uint64_t hash = UINT64_C(14695981039346656037);
  for (int i = 0; i < depth; i++) {
    if (is_in(&alloc.root, frames[i])) break;
    bool lua = is_in(&alloc.lua, frames[i]);
    if ((lua && in_lua) || is_among(kept, count, frames[i])) continue;
    in_lua = lua;
    kept[count++] = frames[i];
    hash = (hash ^ (uintptr_t)frames[i]) * UINT64_C(1099511628211);
  }
  return hash | 1;
}

/* The stack of whoever allocates: from `caller`, where our malloc returns to, outwards. */
static int stack_of(void *frames[ALLOC_FRAMES], const void *caller) {
  int depth = backtrace(frames, ALLOC_FRAMES), from = 0;
  while (from < depth && frames[from] != caller)
    from++;
  if (from == depth) return depth;
  memmove(frames, frames + from, (size_t)(depth - from) * sizeof(*frames));
  return depth - from;
}

/* ---- deciding ---- */

static bool is_target(uint32_t at, void *frames[ALLOC_FRAMES], int *depth, const void *caller) {
  if (at < alloc.look_from || (alloc.target.path == 0 && at != alloc.target.at)) return false;
  *depth = stack_of(frames, caller);
  return alloc.target.path == 0 || path_of(frames, *depth) == alloc.target.path;
}

static bool decide(int mode, const void *caller) {
  uint32_t at = atomic_fetch_add(&alloc.count, 1);
  void *frames[ALLOC_FRAMES];
  int depth = 0;
  if (mode == ALLOC_RECORD) {
    if (at < ALLOC_POINTS)
      alloc_points[at] = (alloc_point){path_of(frames, stack_of(frames, caller)), at};
    return false;
  }
  if (atomic_load(&alloc.hit)) return mode == ALLOC_FROM;
  if (!is_target(at, frames, &depth, caller) || atomic_exchange(&alloc.hit, true)) return false;
  memcpy(alloc.frames, frames, sizeof(frames));
  alloc.depth = depth;
  return true;
}

__attribute__((unused)) /* where malloc is a sanitizer's */
static bool
fails(const void *caller) {
  int mode = atomic_load_explicit(&alloc.mode, memory_order_relaxed);
  if (mode == ALLOC_REST || alloc_inside) return false;
  alloc_inside = true;
  bool fail = decide(mode, caller);
  alloc_inside = false;
  if (fail) errno = ENOMEM;
  return fail;
}

static void alloc_arm(alloc_mode mode, alloc_point target, uint32_t slack) {
  alloc.target = target;
  alloc.look_from = target.at > slack ? target.at - slack : 0;
  if (target.path == 0) alloc.look_from = target.at;
  alloc.depth = 0;
  atomic_store(&alloc.hit, false);
  atomic_store(&alloc.count, 0);
  atomic_store(&alloc.mode, mode);
}

static void alloc_disarm(void) {
  atomic_store(&alloc.mode, ALLOC_REST);
}

/* ---- the C library's names ---- */
#if ALLOC_OWNED

#define CALLER       __builtin_return_address(0)
#define ALLOC_EXPORT __attribute__((visibility("default"), noinline))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

static void *born(void *p, const void *caller) {
  if (p != NULL && !is_in(&alloc.linker, caller)) atomic_fetch_add(&alloc.live, 1);
  return p;
}

ALLOC_EXPORT void *malloc(size_t size) {
  return fails(CALLER) ? NULL : born(__libc_malloc(size), CALLER);
}

ALLOC_EXPORT void *calloc(size_t count, size_t size) {
  return fails(CALLER) ? NULL : born(__libc_calloc(count, size), CALLER);
}

/* libuv calls abort() when the table of descriptors that a loop watches cannot grow. A loop is made
 * and watches its few descriptors when a host starts, before anything was promised to anybody;
 * nothing that runs later may make the table grow. It is the one thing that libuv reallocates. */
static bool may_fail_realloc(const void *caller) {
  bool spare = is_in(&alloc.uv, caller);
  if (spare && atomic_load(&alloc.mode) != ALLOC_REST) (void)atomic_fetch_add(&alloc.spared, 1);
  return !spare;
}

ALLOC_EXPORT void *realloc(void *p, size_t size) {
  if (size != 0 && may_fail_realloc(CALLER) && fails(CALLER)) return NULL;
  void *q = __libc_realloc(p, size);
  if (p == NULL) return born(q, CALLER);
  bool gone = size == 0 && q == NULL;
  if (gone && !is_in(&alloc.linker, CALLER)) atomic_fetch_sub(&alloc.live, 1);
  return q;
}

ALLOC_EXPORT void *memalign(size_t alignment, size_t size) {
  return fails(CALLER) ? NULL : born(__libc_memalign(alignment, size), CALLER);
}

ALLOC_EXPORT void *aligned_alloc(size_t alignment, size_t size) {
  return fails(CALLER) ? NULL : born(__libc_memalign(alignment, size), CALLER);
}

ALLOC_EXPORT int posix_memalign(void **out, size_t alignment, size_t size) {
  void *p = fails(CALLER) ? NULL : born(__libc_memalign(alignment, size), CALLER);
  if (p == NULL) return ENOMEM;
  *out = p;
  return 0;
}

ALLOC_EXPORT void free(void *p) {
  if (p != NULL && !is_in(&alloc.linker, CALLER)) atomic_fetch_sub(&alloc.live, 1);
  __libc_free(p);
}

#endif
#endif
