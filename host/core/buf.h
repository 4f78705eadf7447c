/* buf.h - slices (borrowed bytes) and growing buffers (owned bytes).
 *
 * A tm_buf remembers that it ran out of memory: append freely, ask tm__buf_ok once at the end.
 */
#ifndef TM_CORE_BUF_H
#define TM_CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct tm_slice { /* borrowed: valid for the call unless said otherwise */
  const char *ptr;
  size_t len;
} tm_slice;

#define TM_S(literal) ((tm_slice){(literal), sizeof(literal) - 1})

tm_slice tm__slice(const char *text); /* NULL gives {NULL, 0} */
bool tm__slice_eq(tm_slice a, tm_slice b);
bool tm__slice_is(tm_slice a, const char *text);
int tm__slice_cmp(tm_slice a, tm_slice b); /* byte order, as memcmp */

typedef struct tm_buf { /* zero-initialise */
  char *ptr;            /* NUL-terminated once anything was appended */
  size_t len, cap;
  bool failed;
} tm_buf;

/* Appending is most of what a turn does in C: what fits is done in place. */
void tm__buf_add_slow(tm_buf *b, const void *bytes, size_t len);

static inline void tm__buf_add(tm_buf *b, const void *bytes, size_t len) {
  if (len == 0) return;
  if (len >= b->cap - b->len || b->failed) {
    tm__buf_add_slow(b, bytes, len);
    return;
  }
  memcpy(b->ptr + b->len, bytes, len);
  b->len += len;
  b->ptr[b->len] = '\0';
}

static inline void tm__buf_byte(tm_buf *b, char c) {
  tm__buf_add(b, &c, 1);
}

void tm__buf_slice(tm_buf *b, tm_slice s);
void tm__buf_text(tm_buf *b, const char *text);
void tm__buf_printf(tm_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *tm__buf_room(tm_buf *b, size_t len); /* len more writable bytes, NULL when out of memory; then
                                              add to b->len what was used (the NUL comes back with
                                              the next append or tm__buf_take) */
bool tm__buf_ok(const tm_buf *b);
tm_slice tm__buf_view(const tm_buf *b); /* valid until the next append */
char *tm__buf_take(tm_buf *b); /* caller frees; never NULL-content ("" when empty); NULL when
                                  failed; the buffer is empty again */
void tm__buf_clear(tm_buf *b); /* keeps the memory */
void tm__buf_free(tm_buf *b);  /* idempotent */

/* A copy of `s` that the caller frees, NUL-terminated; NULL when out of memory. */
char *tm__slice_dup(tm_slice s);

/* Copies into a fixed array; false (and an empty string) when it does not fit. */
bool tm__copy(char *dst, size_t size, tm_slice s);

#endif
