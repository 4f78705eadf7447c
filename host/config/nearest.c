/* nearest.c - "did you mean": edit distance, and the known key or variable nearest to a wrong one.
 */
#include <string.h>

#include "config/keys.h"

#define LOOKED_AT 96 /* bytes of a name; what is longer is no slip of a finger */

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

static char lower(char c) {
  return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

size_t tm__edit_distance(tm_slice a, tm_slice b) {
  size_t row[LOOKED_AT + 1];
  size_t rows = least(a.len, LOOKED_AT), cols = least(b.len, LOOKED_AT);
  for (size_t j = 0; j <= cols; j++) {
    row[j] = j;
  }
  for (size_t i = 1; i <= rows; i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= cols; j++) {
      size_t replace = diagonal + (lower(a.ptr[i - 1]) == lower(b.ptr[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = least(replace, least(row[j], row[j - 1]) + 1);
    }
  }
  return row[cols];
}

/* A slip of the finger, or another word? */
static bool is_slip(size_t distance, size_t len) {
  return distance <= 2 ? distance < len : distance <= len / 3;
}

/* The part of `path` that stands directly below `parent`; ptr NULL when path is not below it. */
static tm_slice child_name(const char *path, tm_slice parent) {
  const char *name = path;
  if (parent.len > 0) {
    if (strncmp(path, parent.ptr, parent.len) != 0 || path[parent.len] != '.') {
      return (tm_slice){NULL, 0};
    }
    name += parent.len + 1;
  }
  return (tm_slice){name, strcspn(name, ".")};
}

/* The path of the first key or section, in any section, that is called exactly `name`. */
static tm_slice same_name(tm_slice name) {
  for (size_t i = 0; i < tm__key_count(); i++) {
    const char *path = tm__key_at(i)->path;
    for (const char *part = path; *part != '\0';) {
      size_t len = strcspn(part, ".");
      if (tm__slice_eq((tm_slice){part, len}, name)) {
        return (tm_slice){path, (size_t)(part + len - path)};
      }
      part += len + (part[len] == '.' ? 1 : 0);
    }
  }
  return (tm_slice){"", 0};
}

tm_slice tm__key_nearest(tm_slice parent, tm_slice name) {
  tm_slice best = {"", 0};
  size_t best_distance = SIZE_MAX;
  for (size_t i = 0; i < tm__key_count(); i++) {
    const char *path = tm__key_at(i)->path;
    tm_slice child = child_name(path, parent);
    if (child.ptr == NULL) continue;
    size_t distance = tm__edit_distance(child, name);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = (tm_slice){path, (size_t)(child.ptr + child.len - path)};
  }
  return is_slip(best_distance, name.len) ? best : same_name(name);
}

tm_slice tm__key_nearest_path(tm_slice path) {
  tm_slice best = {"", 0};
  size_t best_distance = SIZE_MAX;
  for (size_t i = 0; i < tm__key_count(); i++) {
    tm_slice known = tm__slice(tm__key_at(i)->path);
    size_t distance = tm__edit_distance(known, path);
    if (distance >= best_distance) continue;
    best_distance = distance;
    best = known;
  }
  if (is_slip(best_distance, path.len)) return best;
  size_t last = path.len;
  while (last > 0 && path.ptr[last - 1] != '.') {
    last--;
  }
  return same_name((tm_slice){path.ptr + last, path.len - last});
}

void tm__key_hint(tm_buf *out, tm_slice nearest) {
  if (nearest.len == 0) {
    tm__buf_text(out, "; `tidemill config` shows all keys");
  } else {
    tm__buf_text(out, "; did you mean '");
    tm__buf_add(out, nearest.ptr, nearest.len);
    tm__buf_text(out, "'?");
  }
}

size_t tm__key_nearest_variable(tm_slice name) {
  size_t best = TM_NO_KEY, best_distance = SIZE_MAX;
  for (size_t i = 0; i < tm__key_count(); i++) {
    char variable[TM_VARIABLE_SIZE];
    tm__key_variable(tm__key_at(i), variable);
    size_t distance = tm__edit_distance(tm__slice(variable), name);
    if (distance < best_distance) {
      best_distance = distance;
      best = i;
    }
  }
  size_t own = name.len - least(name.len, sizeof(TM_VARIABLE_PREFIX) - 1);
  return is_slip(best_distance, own) ? best : TM_NO_KEY;
}
