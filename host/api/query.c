/* query.c - checked values of the query part of a request. */
#include "api/query.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"

#define PAGE_LIMIT 200

typedef struct search {
  const char *known;
  uint32_t seen;    /* bit n: the n-th known name */
  tm_slice unknown; /* ptr NULL: none */
  tm_slice twice;   /* ptr NULL: none */
} search;

static bool is_known(void *ud, tm_slice name) {
  search *s = ud;
  uint32_t bit = 1;
  for (const char *at = s->known; *at != '\0'; bit <<= 1) {
    size_t len = strcspn(at, ",");
    if (tm__slice_eq(name, (tm_slice){at, len})) {
      if ((s->seen & bit) != 0) s->twice = name;
      s->seen |= bit;
      return s->twice.ptr == NULL;
    }
    at += len + (at[len] == ',');
  }
  s->unknown = name;
  return false;
}

tm_status tm__query_known(const tm_http_exchange *x, const char *known, tm_error *err) {
  search s = {.known = known};
  tm__http_query_names(x, is_known, &s);
  if (s.twice.ptr != NULL)
    return tm__fail(err, TM_EINVAL, "request.query", "the query says %s= twice; say it once",
                    s.twice.ptr);
  if (s.unknown.ptr == NULL) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.query",
                  "the query has the unknown name \"%.64s\"; known here: %s", s.unknown.ptr,
                  known[0] != '\0' ? known : "none");
}

tm_status tm__query_text(const char **out, const tm_http_exchange *x, const char *name, size_t max,
                         tm_error *err) {
  tm_slice v = tm__http_query(x, name);
  *out = v.len > 0 ? v.ptr : NULL; /* `status=` asks for nothing */
  if (v.len == 0 || (v.len <= max && tm__utf8_valid(v))) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.query", "%s= must have at most %zu bytes of UTF-8", name,
                  max);
}

tm_status tm__query_limit(int *out, const tm_http_exchange *x, tm_error *err) {
  tm_slice v = tm__http_query(x, "limit");
  *out = 0;
  if (v.ptr == NULL) return TM_OK;
  bool digits = v.len > 0 && v.len <= 3 && strspn(v.ptr, "0123456789") == v.len;
  *out = digits ? atoi(v.ptr) : 0;
  if (*out >= 1 && *out <= PAGE_LIMIT) return TM_OK;
  return tm__fail(err, TM_EINVAL, "request.query", "limit= must be a number from 1 to %d",
                  PAGE_LIMIT);
}
