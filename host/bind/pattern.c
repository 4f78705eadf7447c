/* pattern.c - the matcher: recursion over the pattern, backtracking over the subject.
 *
 * Work is counted where the pattern moves on. What lies between (one run of an item, one balanced
 * part, one comparison) is a pass over the subject, and adds to the count what it took.
 */
#include "bind/pattern.h"

#include <stdio.h>
#include <string.h>

#define MAX_DEPTH    200
#define BYTES_A_STEP 8 /* in loops as small as memcmp's */

static const char *match(tm_pattern *m, const char *s, const char *p);

static const char *fail(tm_pattern *m, tm_pattern_failure failure, const char *problem) {
  if (m->failure != TM_PATTERN_FINE) return NULL;
  m->failure = failure;
  (void)snprintf(m->problem, sizeof(m->problem), "%s", problem);
  return NULL;
}

static const char *malformed(tm_pattern *m, const char *problem) {
  return fail(m, TM_PATTERN_MALFORMED, problem);
}

/* False: stop. */
static bool settle(tm_pattern *m) {
  size_t steps = m->steps;
  m->steps = 0;
  if (m->failure == TM_PATTERN_FINE && (m->charge == NULL || m->charge(m->ud, steps))) return true;
  (void)fail(m, TM_PATTERN_STOPPED, "stopped");
  return false;
}

static bool step(tm_pattern *m) {
  return ++m->steps < TM_PATTERN_STEPS || settle(m);
}

/* Behind the pattern is a NUL, whatever lies there. */
static char peek(const tm_pattern *m, const char *p) {
  return p < m->pattern_end ? *p : '\0';
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
static bool is_alpha(unsigned char c) {
  return is_lower(c | 0x20);
}
static bool is_alnum(unsigned char c) {
  return is_alpha(c) || is_digit(c);
}

static bool in_class(unsigned char c, unsigned char class) {
  bool yes;
  if (!is_alpha(class)) return class == c;
  switch (class | 0x20) {
  case 'a': yes = is_alpha(c); break;
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
  return yes == is_lower(class);
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

/* Behind the set whose '[' stands before p; NULL: malformed. */
static const char *set_end(tm_pattern *m, const char *p) {
  const char *start = p;
  if (peek(m, p) == '^') p++;
  do { /* the first ']' is a member */
    if (p == m->pattern_end) return malformed(m, "malformed pattern (missing ']')");
    if (*p++ == '%' && p < m->pattern_end) p++;
  } while (peek(m, p) != ']');
  m->steps += (size_t)(p - start) / BYTES_A_STEP;
  return p + 1;
}

/* Behind the single-character item at p; NULL: malformed. */
static const char *item_end(tm_pattern *m, const char *p) {
  char c = *p++;
  if (c == '[') return set_end(m, p);
  if (c != '%') return p;
  if (p == m->pattern_end) return malformed(m, "malformed pattern (ends with '%')");
  return p + 1;
}

static bool item_matches(tm_pattern *m, const char *s, const char *p, const char *end) {
  if (s >= m->end) return false;
  unsigned char c = (unsigned char)*s;
  switch (*p) {
  case '.': return true;
  case '%': return in_class(c, (unsigned char)p[1]);
  case '[': m->steps += (size_t)(end - p) / BYTES_A_STEP; return in_set(c, p, end - 1);
  default: return (unsigned char)*p == c;
  }
}

/* ---- items ---- */

static const char *match_balance(tm_pattern *m, const char *s, const char *p) {
  if (m->pattern_end - p < 2) return malformed(m, "malformed pattern (missing arguments to '%b')");
  if (s >= m->end || *s != p[0]) return NULL;
  const char *start = s, *found = NULL;
  size_t level = 1;
  while (found == NULL && ++s < m->end) {
    if (*s == p[1]) {
      if (--level == 0) found = s + 1;
    } else if (*s == p[0]) {
      level++;
    }
  }
  m->steps += (size_t)(s - start) / 2;
  return found;
}

/* Is s where the set at p begins to hold? *end: behind the set. */
static bool at_frontier(tm_pattern *m, const char *s, const char *p, const char **end) {
  *end = NULL;
  if (peek(m, p) != '[')
    (void)malformed(m, "missing '[' after '%f' in pattern");
  else
    *end = set_end(m, p + 1);
  if (*end == NULL) return false;
  unsigned char before = s == m->subject ? 0 : (unsigned char)s[-1];
  unsigned char here = s == m->end ? 0 : (unsigned char)*s;
  return !in_set(before, p, *end - 1) && in_set(here, p, *end - 1);
}

static const char *match_back(tm_pattern *m, const char *s, char digit) {
  int i = digit - '1';
  if (i < 0 || i >= m->count || m->captures[i].len == TM_CAPTURE_OPEN) {
    char problem[] = "invalid capture index %N";
    problem[sizeof(problem) - 2] = digit;
    return malformed(m, problem);
  }
  size_t len = (size_t)m->captures[i].len;
  if (len > (size_t)(m->end - s)) return NULL; /* also what is only a position */
  m->steps += len / BYTES_A_STEP;
  return memcmp(m->captures[i].start, s, len) == 0 ? s + len : NULL;
}

static const char *open_capture(tm_pattern *m, const char *s, const char *p) {
  bool position = peek(m, p) == ')';
  if (m->count == TM_PATTERN_CAPTURES) return malformed(m, "too many captures");
  m->captures[m->count].start = s;
  m->captures[m->count++].len = position ? TM_CAPTURE_POSITION : TM_CAPTURE_OPEN;
  const char *e = match(m, s, position ? p + 1 : p);
  if (e == NULL) m->count--;
  return e;
}

static const char *close_capture(tm_pattern *m, const char *s, const char *p) {
  int i = m->count - 1;
  while (i >= 0 && m->captures[i].len != TM_CAPTURE_OPEN)
    i--;
  if (i < 0) return malformed(m, "invalid pattern capture");
  m->captures[i].len = s - m->captures[i].start;
  const char *e = match(m, s, p);
  if (e == NULL) m->captures[i].len = TM_CAPTURE_OPEN;
  return e;
}

/* Behind the longest run of the item from s on. */
static const char *run_end(tm_pattern *m, const char *s, const char *p, const char *end) {
  const char *start = s;
  switch (*p) {
  case '.': return m->end;
  case '%':
    while (s < m->end && in_class((unsigned char)*s, (unsigned char)p[1]))
      s++;
    break;
  case '[':
    while (item_matches(m, s, p, end) && (m->steps < TM_PATTERN_STEPS || settle(m)))
      s++;
    break;
  default:
    while (s < m->end && *s == *p)
      s++;
    break;
  }
  m->steps += (size_t)(s - start) / 2;
  return s;
}

/* Must whatever p matches begin with the byte *p? */
static bool is_letter(const tm_pattern *m, const char *p) {
  char c = peek(m, p), after = peek(m, p + 1);
  return p < m->pattern_end && (c == '\0' || strchr(".[%()$", c) == NULL) &&
         (after == '\0' || strchr("*?-", after) == NULL);
}

/* match(m, s, p) for one of many s, told at once where the first byte decides. */
static const char *try_at(tm_pattern *m, const char *s, const char *p, bool letter) {
  if (!letter || m->depth == 0) return match(m, s, p);
  if (!step(m) || s == m->end || *s != *p) return NULL;
  return match(m, s, p);
}

/* As many as possible, then fewer and fewer. */
static const char *expand_most(tm_pattern *m, const char *s, const char *p, const char *end) {
  bool letter = is_letter(m, end + 1);
  size_t n = (size_t)(run_end(m, s, p, end) - s);
  for (n++; n-- > 0;) {
    const char *e = try_at(m, s + n, end + 1, letter);
    if (e != NULL || m->failure != TM_PATTERN_FINE) return e;
  }
  return NULL;
}

__attribute__((nonnull)) static const char *expand_least(tm_pattern *m, const char *s,
                                                         const char *p, const char *end) {
  bool letter = is_letter(m, end + 1);
  for (;; s++) {
    const char *e = try_at(m, s, end + 1, letter);
    if (e != NULL || m->failure != TM_PATTERN_FINE) return e;
    if (!item_matches(m, s, p, end)) return NULL;
  }
}

/* ---- the loop over the pattern ---- */

/* The functions below answer true when *s is the result, and else move *s and *p on. */

static bool match_repeated(tm_pattern *m, const char **s, const char **p, const char *end) {
  switch (*end) {
  case '+': *s = expand_most(m, *s + 1, *p, end); return true;
  case '*': *s = expand_most(m, *s, *p, end); return true;
  case '-': *s = expand_least(m, *s, *p, end); return true;
  default: break;
  }
  const char *e = match(m, *s + 1, end + 1); /* ? */
  if (e != NULL || m->failure != TM_PATTERN_FINE) {
    *s = e;
    return true;
  }
  *p = end + 1;
  return false;
}

static bool match_item(tm_pattern *m, const char **s, const char **p) {
  const char *end = item_end(m, *p);
  if (end == NULL) {
    *s = NULL;
    return true;
  }
  char repeat = peek(m, end);
  bool repeated = repeat == '*' || repeat == '?' || repeat == '-';
  if (!item_matches(m, *s, *p, end)) {
    if (!repeated) {
      *s = NULL;
      return true;
    }
    *p = end + 1;
    return false;
  }
  if (repeated || repeat == '+') return match_repeated(m, s, p, end);
  (*s)++;
  *p = end;
  return false;
}

static bool match_escape(tm_pattern *m, const char **s, const char **p) {
  const char *at = *p, *end;
  char c = peek(m, at + 1);
  if (c == 'b') {
    *s = match_balance(m, *s, at + 2);
    *p = at + 4;
  } else if (c == 'f') {
    if (!at_frontier(m, *s, at + 2, &end)) *s = NULL;
    *p = end;
  } else if (is_digit((unsigned char)c)) {
    *s = match_back(m, *s, c);
    *p = at + 2;
  } else {
    return match_item(m, s, p);
  }
  return *s == NULL;
}

static const char *walk(tm_pattern *m, const char *s, const char *p) {
  bool done = false;
  while (!done && p < m->pattern_end) {
    if (!step(m)) return NULL;
    switch (*p) {
    case '(': return open_capture(m, s, p + 1);
    case ')': return close_capture(m, s, p + 1);
    case '%': done = match_escape(m, &s, &p); break;
    case '$':
      if (p + 1 == m->pattern_end) return s == m->end ? s : NULL;
      done = match_item(m, &s, &p);
      break;
    default: done = match_item(m, &s, &p); break;
    }
  }
  return s;
}

static const char *match(tm_pattern *m, const char *s, const char *p) {
  if (m->depth == 0) return fail(m, TM_PATTERN_DEEP, "pattern too complex");
  m->depth--;
  const char *e = walk(m, s, p);
  m->depth++;
  return m->failure == TM_PATTERN_FINE ? e : NULL;
}

/* ---- searching ---- */

void tm__pattern_init(tm_pattern *m, tm_slice subject, tm_slice pattern, bool anchor) {
  m->subject = subject.ptr;
  m->end = subject.ptr + subject.len;
  m->anchored = anchor && pattern.len > 0 && pattern.ptr[0] == '^';
  m->pattern = pattern.ptr + (m->anchored ? 1 : 0);
  m->pattern_end = pattern.ptr + pattern.len;
  m->charge = NULL;
  m->ud = NULL;
  m->steps = 0;
  m->failure = TM_PATTERN_FINE;
  m->problem[0] = '\0';
  m->count = 0;
}

const char *tm__pattern_next(tm_pattern *m, const char **at, const char *last_end) {
  bool letter = !m->anchored && is_letter(m, m->pattern);
  for (const char *s = *at; s <= m->end; s++) {
    if (letter) {
      const char *next = memchr(s, *m->pattern, (size_t)(m->end - s));
      m->steps += (size_t)((next != NULL ? next : m->end) - s) / BYTES_A_STEP;
      if (next == NULL) return NULL;
      s = next;
    }
    m->count = 0;
    m->depth = MAX_DEPTH;
    const char *e = match(m, s, m->pattern);
    if (e != NULL && e != last_end) {
      *at = s;
      return e;
    }
    if (m->anchored || m->failure != TM_PATTERN_FINE) return NULL;
  }
  return NULL;
}

bool tm__pattern_is_plain(tm_slice pattern) {
  const char *p = pattern.ptr, *end = pattern.ptr + pattern.len;
  for (; p < end; p++)
    if (*p != '\0' && strchr("^$*+?.([%-", *p) != NULL) return false;
  return true;
}

/* Looking for the first byte is fastest while it is rare; memmem never takes long. */
const char *tm__pattern_find_plain(tm_slice s, tm_slice what) {
  const char *at = s.ptr, *end = s.ptr + s.len;
  size_t compared = 0;
  if (what.len == 0) return at;
  while (compared <= (size_t)(at - s.ptr) * 4 + 256) {
    if (what.len > (size_t)(end - at)) return NULL;
    at = memchr(at, what.ptr[0], (size_t)(end - at) - what.len + 1);
    if (at == NULL || memcmp(at, what.ptr, what.len) == 0) return at;
    compared += what.len + 32;
    at++;
  }
  return memmem(at, (size_t)(end - at), what.ptr, what.len);
}
