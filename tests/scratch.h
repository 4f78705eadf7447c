/* scratch.h - a new folder for a test's files, under TMPDIR: `make check-c` sets it to where syncs
 * cost nothing. What a power cut leaves is for the tests with a disk of their own,
 * tests/shim/disk.c. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline bool scratch_make(char *dir, size_t size, const char *name) {
  const char *base = getenv("TMPDIR");
  if (base == NULL || strlen(base) + strlen("/tidemill--XXXXXX") + strlen(name) >= size)
    base = "/tmp"; /* which always fits */
  (void)snprintf(dir, size, "%s/tidemill-%s-XXXXXX", base, name);
  return mkdtemp(dir) != NULL;
}

#endif
