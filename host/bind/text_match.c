/* text_match.c - Lua patterns with a bound: every comparison counts, and so does every level.
 *
 * The pattern is text from a script and the subject text from anybody; the matcher of the string
 * library can be made to try for hours. The rules are those of string.find, read anew.
 */
#include <string.h>

#include "bind/text.h"

#define MAX_STEPS    200000
#define MAX_DEPTH    200
#define MAX_CAPTURES 32
#define OPEN         SIZE_MAX /* a capture that is not closed yet */
#define POSITION     (SIZE_MAX - 1)

typedef struct matcher {
  const char *subject, *end; /* of the subject */
  const char *pattern_end;
  size_t steps, depth;
  struct {
    const char *start;
    size_t len;
  } captures[MAX_CAPTURES];
  size_t count;
  tm_status status;
  tm_error *err;
} matcher;

static const char *match(matcher *m, const char *s, const char *p);

static const char *malformed(matcher *m, const char *what) {
  if (m->status == TM_OK) m->status = tm__fail(m->err, TM_EINVAL, "text.pattern", "%s", what);
  return NULL;
}

static bool step(matcher *m) {
  if (m->status != TM_OK) return false;
  if (m->steps++ < MAX_STEPS) return true;
  m->status = tm__fail(m->err, TM_ELIMIT, "text.too_hard",
                       "the pattern needs too many steps on this text; make it more specific");
  return false;
}

/* ---- classes ---- */

static bool is_upper(unsigned char c) {
  return c >= 'A' && c <= 'Z';
}
static bool is_lower(unsigned char c) {
  return c >= 'a' && c <= 'z';
}
static bool is_digit(unsigned char c) {
  return c >= '0' && c <= '9';
}
static bool is_alnum(unsigned char c) {
  return is_upper(c) || is_lower(c) || is_digit(c);
}

static bool in_class(unsigned char c, unsigned char class) {
  bool yes;
  switch (class | 0x20) {
  case 'a': yes = is_upper(c) || is_lower(c); break;
  case 'c': yes = c < 32 || c == 127; break;
  case 'd': yes = is_digit(c); break;
  case 'g': yes = c > 32 && c < 127; break;
  case 'l': yes = is_lower(c); break;
  case 'p': yes = c > 32 && c < 127 && !is_alnum(c); break;
  case 's': yes = c == ' ' || (c >= 9 && c <= 13); break;
  case 'u': yes = is_upper(c); break;
  case 'w': yes = is_alnum(c); break;
  case 'x': yes = is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); break;
  case 'z': yes = c == 0; break;
  default: return class == c;
  }
  if (!is_upper(class) && !is_lower(class)) return class == c;
  return is_upper(class) ? !yes : yes;
}

/* `p` is at '[', `last` at its ']'. */
static bool in_set(unsigned char c, const char *p, const char *last) {
  bool yes = true;
  if (p[1] == '^') {
    yes = false;
    p++;
  }
  while (++p < last) {
    if (*p == '%') {
      p++;
      if (in_class(c, (unsigned char)*p)) return yes;
    } else if (p[1] == '-' && p + 2 < last) {
      if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2]) return yes;
      p += 2;
    } else if ((unsigned char)*p == c) {
      return yes;
    }
  }
  return !yes;
}

/* Behind the single-character item at p; NULL: malformed. */
static const char *item_end(matcher *m, const char *p) {
  char c = *p++;
  if (c == '%') {
    if (p == m->pattern_end) return malformed(m, "the pattern ends with %");
    return p + 1;
  }
  if (c != '[') return p;
  if (p < m->pattern_end && *p == '^') p++;
  do { /* the first ']' is a member */
    if (p == m->pattern_end) return malformed(m, "the pattern has a [ without ]");
    if (*p++ == '%') {
      if (p == m->pattern_end) return malformed(m, "the pattern has a [ without ]");
      p++;
    }
  } while (p == m->pattern_end || *p != ']');
  return p + 1;
}

static bool item_matches(matcher *m, const char *s, const char *p, const char *end) {
  if (!step(m) || s >= m->end) return false;
  unsigned char c = (unsigned char)*s;
  switch (*p) {
  case '.': return true;
  case '%': return in_class(c, (unsigned char)p[1]);
  case '[': return in_set(c, p, end - 1);
  default: return (unsigned char)*p == c;
  }
}

/* ---- items ---- */

static const char *match_balance(matcher *m, const char *s, const char *p) {
  if (p + 1 >= m->pattern_end) return malformed(m, "%b needs two characters");
  if (s >= m->end || *s != p[0]) return NULL;
  size_t level = 1;
  while (++s < m->end && step(m)) {
    if (*s == p[1]) {
      if (--level == 0) return s + 1;
    } else if (*s == p[0]) {
      level++;
    }
  }
  return NULL;
}

static const char *match_frontier(matcher *m, const char *s, const char *p) {
  if (p >= m->pattern_end || *p != '[') return malformed(m, "%f needs a set in [ ]");
  const char *end = item_end(m, p);
  if (end == NULL) return NULL;
  unsigned char before = s == m->subject ? 0 : (unsigned char)s[-1];
  unsigned char here = s == m->end ? 0 : (unsigned char)*s;
  if (in_set(before, p, end - 1) || !in_set(here, p, end - 1)) return NULL;
  return match(m, s, end);
}

static const char *match_back(matcher *m, const char *s, char digit) {
  size_t i = (size_t)(digit - '1');
  if (digit == '0' || i >= m->count || m->captures[i].len == OPEN)
    return malformed(m, "the pattern refers to a capture that it does not have");
  size_t len = m->captures[i].len;
  if (len > (size_t)(m->end - s)) return NULL; /* also what is only a position */
  m->steps += len / 8;
  if (memcmp(m->captures[i].start, s, len) != 0) return NULL;
  return s + len;
}

static const char *open_capture(matcher *m, const char *s, const char *p, size_t len) {
  if (m->count == MAX_CAPTURES) return malformed(m, "the pattern has too many captures");
  m->captures[m->count].start = s;
  m->captures[m->count++].len = len;
  const char *e = match(m, s, p);
  if (e == NULL) m->count--;
  return e;
}

static const char *close_capture(matcher *m, const char *s, const char *p) {
  size_t i = m->count;
  while (i > 0 && m->captures[i - 1].len != OPEN)
    i--;
  if (i == 0) return malformed(m, "the pattern has a ) without (");
  m->captures[i - 1].len = (size_t)(s - m->captures[i - 1].start);
  const char *e = match(m, s, p);
  if (e == NULL) m->captures[i - 1].len = OPEN;
  return e;
}

/* As many as possible, then fewer and fewer. */
static const char *expand_most(matcher *m, const char *s, const char *p, const char *end,
                               size_t least) {
  size_t n = 0;
  while (item_matches(m, s + n, p, end))
    n++;
  for (n++; n-- > least && m->status == TM_OK;) {
    const char *e = match(m, s + n, end + 1);
    if (e != NULL) return e;
  }
  return NULL;
}

static const char *expand_least(matcher *m, const char *s, const char *p, const char *end) {
  for (;; s++) {
    const char *e = match(m, s, end + 1);
    if (e != NULL) return e;
    if (!item_matches(m, s, p, end)) return NULL;
  }
}

/* ---- the loop over the pattern ---- */

/* One single-character item with its repetition. Sets *done when *s is the answer; else goes on
 * with *s and *p. */
static bool match_item(matcher *m, const char **s, const char **p) {
  const char *end = item_end(m, *p);
  if (end == NULL) {
    *s = NULL;
    return true;
  }
  char repeat = end < m->pattern_end ? *end : '\0';
  if (repeat == '*' || repeat == '+') {
    *s = expand_most(m, *s, *p, end, repeat == '+' ? 1 : 0);
    return true;
  }
  if (repeat == '-') {
    *s = expand_least(m, *s, *p, end);
    return true;
  }
  bool one = item_matches(m, *s, *p, end);
  if (repeat == '?') {
    const char *e = one ? match(m, *s + 1, end + 1) : NULL;
    if (e != NULL) {
      *s = e;
      return true;
    }
    *p = end + 1;
    return false;
  }
  if (!one) {
    *s = NULL;
    return true;
  }
  (*s)++;
  *p = end;
  return false;
}

/* %b, %f and %1; false: p is at none of them. */
static bool match_special(matcher *m, const char **s, const char **p, bool *done) {
  const char *at = *p;
  if (*at != '%' || at + 1 >= m->pattern_end) return false;
  *done = false;
  if (at[1] == 'b') {
    *s = match_balance(m, *s, at + 2);
    *p = at + 4;
  } else if (at[1] == 'f') {
    *s = match_frontier(m, *s, at + 2);
    *done = true;
  } else if (is_digit((unsigned char)at[1])) {
    *s = match_back(m, *s, at[1]);
    *p = at + 2;
  } else {
    return false;
  }
  *done = *done || *s == NULL;
  return true;
}

static const char *walk(matcher *m, const char *s, const char *p) {
  while (p < m->pattern_end) {
    bool done;
    if (!step(m)) return NULL;
    if (*p == '(') {
      bool position = p + 1 < m->pattern_end && p[1] == ')';
      return open_capture(m, s, p + (position ? 2 : 1), position ? POSITION : OPEN);
    }
    if (*p == ')') return close_capture(m, s, p + 1);
    if (*p == '$' && p + 1 == m->pattern_end) return s == m->end ? s : NULL;
    if (!match_special(m, &s, &p, &done)) done = match_item(m, &s, &p);
    if (done) return s;
  }
  return s;
}

static const char *match(matcher *m, const char *s, const char *p) {
  if (m->depth++ == MAX_DEPTH && m->status == TM_OK)
    m->status = tm__fail(m->err, TM_ELIMIT, "text.too_hard", "the pattern is nested too deeply");
  const char *e = m->status == TM_OK ? walk(m, s, p) : NULL;
  m->depth--;
  return m->status == TM_OK ? e : NULL;
}

static bool is_plain(tm_slice pattern) {
  for (size_t i = 0; i < pattern.len; i++)
    if (pattern.ptr[i] != '\0' && strchr("^$*+?.([%-", pattern.ptr[i]) != NULL) return false;
  return true;
}

tm_status tm__text_match(tm_slice s, tm_slice pattern, bool *found, tm_error *err) {
  const char *p = pattern.ptr;
  bool anchored = pattern.len > 0 && *p == '^';
  matcher m = {
      .subject = s.ptr, .end = s.ptr + s.len, .pattern_end = pattern.ptr + pattern.len, .err = err};
  *found = is_plain(pattern) && memmem(s.ptr, s.len, p, pattern.len) != NULL;
  if (is_plain(pattern)) return TM_OK;
  if (anchored) p++;
  for (const char *at = s.ptr; at <= m.end; at++) {
    m.count = 0;
    *found = match(&m, at, p) != NULL;
    if (*found || anchored || m.status != TM_OK) break;
  }
  for (size_t i = 0; *found && i < m.count; i++)
    if (m.captures[i].len == OPEN) (void)malformed(&m, "the pattern has a ( without )");
  if (m.status != TM_OK) *found = false;
  return m.status;
}
