/* must.h - what every fuzz target asserts with; included once per target. */
#ifndef TESTS_FUZZ_MUST_H
#define TESTS_FUZZ_MUST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(holds)                                                                                \
  do {                                                                                             \
    if (!(holds)) {                                                                                \
      (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #holds);                            \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#endif
