/* words.c - small questions about words. */
#include "config/value.h"

bool tm__is_one_of(tm_slice text, const char *const *words) {
  for (; *words != NULL; words++) {
    if (tm__slice_is(text, *words)) return true;
  }
  return false;
}

bool tm__is_name(tm_slice s) {
  for (size_t i = 0; i < s.len; i++) {
    char c = s.ptr[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && (i == 0 || c < '0' || c > '9')) return false;
  }
  return s.len > 0;
}
