/* buf.c - slices and growing buffers. A buffer always has room for one NUL behind its bytes. */
#include "core/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

tm_slice tm__slice(const char *text) {
  return (tm_slice){text, text == NULL ? 0 : strlen(text)};
}

bool tm__slice_eq(tm_slice a, tm_slice b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

bool tm__slice_is(tm_slice a, const char *text) {
  return tm__slice_eq(a, tm__slice(text));
}

int tm__slice_cmp(tm_slice a, tm_slice b) {
  size_t n = a.len < b.len ? a.len : b.len;
  int order = n == 0 ? 0 : memcmp(a.ptr, b.ptr, n);
  if (order != 0) return order;
  return (a.len > b.len) - (a.len < b.len);
}

char *tm__slice_dup(tm_slice s) {
  char *copy = malloc(s.len + 1);
  if (copy == NULL) return NULL;
  if (s.len > 0) memcpy(copy, s.ptr, s.len);
  copy[s.len] = '\0';
  return copy;
}

bool tm__copy(char *dst, size_t size, tm_slice s) {
  bool fits = s.len < size;
  size_t n = fits ? s.len : 0;
  if (n > 0) memcpy(dst, s.ptr, n);
  if (size > 0) dst[n] = '\0';
  return fits;
}

static bool grow(tm_buf *b, size_t len) {
  if (b->failed) return false;
  char *ptr = NULL;
  size_t cap = b->cap < 32 ? 64 : b->cap * 2; /* no object is larger than PTRDIFF_MAX */
  if (len < (size_t)PTRDIFF_MAX - b->len) {
    size_t need = b->len + len + 1;
    if (cap < need) cap = need;
    ptr = realloc(b->ptr, cap);
  }
  if (ptr == NULL) {
    b->failed = true;
    return false;
  }
  b->ptr = ptr;
  b->cap = cap;
  return true;
}

static inline bool reserve(tm_buf *b, size_t len) {
  return (len < b->cap - b->len && !b->failed) || grow(b, len);
}

char *tm__buf_room(tm_buf *b, size_t len) {
  return reserve(b, len) ? b->ptr + b->len : NULL;
}

void tm__buf_add_slow(tm_buf *b, const void *bytes, size_t len) {
  if (reserve(b, len)) tm__buf_add(b, bytes, len);
}

void tm__buf_slice(tm_buf *b, tm_slice s) {
  tm__buf_add(b, s.ptr, s.len);
}

void tm__buf_text(tm_buf *b, const char *text) {
  tm__buf_add(b, text, strlen(text));
}

void tm__buf_printf(tm_buf *b, const char *fmt, ...) {
  if (!reserve(b, 0)) return;
  va_list ap;
  va_start(ap, fmt);
  va_list again;
  va_copy(again, ap);
  int n = vsnprintf(b->ptr + b->len, b->cap - b->len, fmt, ap);
  if (n < 0) {
    b->failed = true;
  } else if ((size_t)n >= b->cap - b->len && reserve(b, (size_t)n)) {
    (void)vsnprintf(b->ptr + b->len, b->cap - b->len, fmt, again);
  }
  if (!b->failed) b->len += (size_t)n;
  va_end(again);
  va_end(ap);
}

bool tm__buf_ok(const tm_buf *b) {
  return !b->failed;
}

tm_slice tm__buf_view(const tm_buf *b) {
  return (tm_slice){b->ptr == NULL ? "" : b->ptr, b->len};
}

char *tm__buf_take(tm_buf *b) {
  char *ptr = NULL;
  if (reserve(b, 0)) {
    ptr = b->ptr;
    ptr[b->len] = '\0';
    b->ptr = NULL;
  }
  tm__buf_free(b);
  return ptr;
}

void tm__buf_clear(tm_buf *b) {
  b->len = 0;
  b->failed = false;
  if (b->ptr != NULL) b->ptr[0] = '\0';
}

void tm__buf_free(tm_buf *b) {
  free(b->ptr);
  *b = (tm_buf){0};
}
