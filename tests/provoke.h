/* provoke.h - what a test can make happen that does not happen by itself. Every test program is
 * linked with provoke.c, in front of the functions that the Makefile names with --wrap. */
#ifndef TESTS_PROVOKE_H
#define TESTS_PROVOKE_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct tm_provoke {
  _Atomic int64_t hours;  /* that the monotonic clock is ahead */
  atomic_int threads;     /* that can still be started; negative: any number */
  atomic_bool plain_curl; /* libcurl was built without what the host needs */
} tm_provoke;
extern tm_provoke provoke;

/* Notes a code that the host gave to a test without making a tm_error of it. */
void provoke_note(const char *code);

#endif
