/* body.c - request bodies: JSON objects whose members are declared, checked, and nothing else. */
#include "api/body.h"

#include <string.h>

static const char *wanted(tm_field_kind kind) {
  switch (kind) {
  case TM_FIELD_ID:
  case TM_FIELD_TEXT: return "a string";
  case TM_FIELD_OBJECT: return "an object";
  case TM_FIELD_INPUT: return "a string, or an object for a structured step";
  case TM_FIELD_COUNT: return "an integer";
  case TM_FIELD_KEY: return "a string or an integer";
  case TM_FIELD_FLAG: return "true or false";
  case TM_FIELD_ANY: return "a value";
  }
  return "something else";
}

static bool has_type(tm_field_kind kind, const json_t *v) {
  switch (kind) {
  case TM_FIELD_ID:
  case TM_FIELD_TEXT: return json_is_string(v);
  case TM_FIELD_OBJECT: return json_is_object(v);
  case TM_FIELD_INPUT: return json_is_string(v) || json_is_object(v);
  case TM_FIELD_COUNT: return json_is_integer(v);
  case TM_FIELD_KEY: return json_is_string(v) || json_is_integer(v);
  case TM_FIELD_FLAG: return json_is_boolean(v);
  case TM_FIELD_ANY: return true;
  }
  return false;
}

static tm_status check_text(const tm_field *f, const json_t *v, tm_error *err) {
  size_t len = json_string_length(v);
  bool whole = f->kind == TM_FIELD_INPUT || f->kind == TM_FIELD_ANY;
  if (!whole && strlen(json_string_value(v)) != len)
    return tm__fail(err, TM_EINVAL, "request.member_value",
                    "\"%s\" holds a NUL character, which cannot be kept", f->name);
  if ((f->kind == TM_FIELD_ID || f->kind == TM_FIELD_KEY) && (len == 0 || len > f->max))
    return tm__fail(err, TM_EINVAL, "request.member_value",
                    "\"%s\" must have 1 to %zu bytes, it has %zu", f->name, f->max, len);
  return TM_OK;
}

static tm_status check_value(const tm_field *f, const json_t *v, tm_error *err) {
  if (!has_type(f->kind, v))
    return tm__fail(err, TM_EINVAL, "request.member_type", "\"%s\" must be %s", f->name,
                    wanted(f->kind));
  if (json_is_string(v)) return check_text(f, v, err);
  json_int_t n = json_integer_value(v);
  if (f->kind == TM_FIELD_COUNT && (n < 1 || (uint64_t)n > f->max))
    return tm__fail(err, TM_EINVAL, "request.member_value",
                    "\"%s\" must be from 1 to %zu, it is %lld", f->name, f->max, (long long)n);
  return TM_OK;
}

static tm_status unknown(const char *key, const tm_field *fields, size_t count, tm_error *err) {
  tm_buf known = {0};
  for (size_t i = 0; i < count; i++)
    tm__buf_printf(&known, "%s%s", i > 0 ? ", " : "", fields[i].name);
  tm_status st = tm__fail(err, TM_EINVAL, "request.member_unknown",
                          "the body has the unknown member \"%.64s\"; known here: %s", key,
                          tm__buf_ok(&known) && known.len > 0 ? known.ptr : "none");
  tm__buf_free(&known);
  return st;
}

static tm_status check_names(json_t *root, const tm_field *fields, size_t count, tm_error *err) {
  tm_status st = TM_OK;
  for (void *it = json_object_iter(root); it != NULL && st == TM_OK;
       it = json_object_iter_next(root, it)) {
    size_t i = 0;
    while (i < count && strcmp(json_object_iter_key(it), fields[i].name) != 0)
      i++;
    if (i == count) st = unknown(json_object_iter_key(it), fields, count, err);
  }
  return st;
}

static tm_status collect(tm_body *b, const tm_field *fields, size_t count, tm_error *err) {
  for (size_t i = 0; i < count; i++) {
    json_t *v = json_object_get(b->root, fields[i].name);
    if (v != NULL && json_is_null(v)) v = NULL;
    if (v == NULL && fields[i].required)
      return tm__fail(err, TM_EINVAL, "request.member_missing",
                      "the body needs the member \"%s\": %s", fields[i].name,
                      wanted(fields[i].kind));
    tm_status st = v != NULL ? check_value(&fields[i], v, err) : TM_OK;
    if (st != TM_OK) return st;
    b->values[i] = v;
  }
  return TM_OK;
}

tm_status tm__body_parse(tm_body *out, tm_slice text, const tm_field *fields, size_t count,
                         tm_error *err) {
  *out = (tm_body){0};
  tm_status st = tm__json_parse_bounded(&out->root, text.len > 0 ? text : TM_S("{}"), TM_BODY_DEPTH,
                                        TM_JSON_INPUT_VALUES, err);
  if (st != TM_OK) return st;
  if (!json_is_object(out->root))
    st = tm__fail(err, TM_EINVAL, "request.body", "the body must be a JSON object");
  if (st == TM_OK) st = check_names(out->root, fields, count, err);
  if (st == TM_OK) st = collect(out, fields, count, err);
  if (st != TM_OK) tm__body_free(out);
  return st;
}

void tm__body_free(tm_body *b) {
  json_decref(b->root);
  *b = (tm_body){0};
}

const char *tm__body_text(const tm_body *b, size_t field) {
  return b->values[field] != NULL ? json_string_value(b->values[field]) : NULL;
}
