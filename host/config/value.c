/* value.c - from text to a key's type. */
#include "config/value.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/utf8.h"

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

static bool is_null(tm_slice text) {
  static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
  return tm__is_one_of(text, words);
}

static bool is_true(tm_slice text) {
  static const char *const words[] = {"true", "True", "TRUE", NULL};
  return tm__is_one_of(text, words);
}

static bool is_false(tm_slice text) {
  static const char *const words[] = {"false", "False", "FALSE", NULL};
  return tm__is_one_of(text, words);
}

static size_t digits(tm_slice s, size_t at) {
  size_t n = 0;
  while (at + n < s.len && s.ptr[at + n] >= '0' && s.ptr[at + n] <= '9') {
    n++;
  }
  return n;
}

/* [-+]?(digits[.digits*]|.digits)([eE][-+]?digits)? */
static bool is_number(tm_slice s) {
  size_t at = s.len > 0 && (s.ptr[0] == '-' || s.ptr[0] == '+') ? 1 : 0;
  size_t before = digits(s, at), after = 0;
  at += before;
  if (at < s.len && s.ptr[at] == '.') {
    after = digits(s, at + 1);
    at += after + 1;
  }
  if (before + after == 0) return false;
  if (at < s.len && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
    at++;
    if (at < s.len && (s.ptr[at] == '-' || s.ptr[at] == '+')) at++;
    if (digits(s, at) == 0) return false;
    at += digits(s, at);
  }
  return at == s.len;
}

const char *tm__plain_kind(tm_slice text) {
  if (is_null(text)) return "null";
  if (is_true(text) || is_false(text)) return "the boolean";
  return is_number(text) ? "the number" : NULL;
}

/* It may have been a secret. */
static void wipe(char *text) {
  if (text != NULL) explicit_bzero(text, strlen(text));
  free(text);
}

void tm__value_free(tm_value *v) {
  for (size_t i = 0; i < v->count; i++) {
    wipe(v->items[i]);
  }
  free(v->items);
  wipe(v->text);
  *v = (tm_value){0};
}

static bool name_ok(tm_slice s) {
  return s.len <= 63 && tm__is_name(s) && (s.len < 7 || strncasecmp(s.ptr, "sqlite_", 7) != 0);
}

static bool address_ok(tm_slice s) {
  const char *colon = memrchr(s.ptr, ':', s.len);
  if (colon == NULL || colon == s.ptr) return false;
  tm_slice host = {s.ptr, (size_t)(colon - s.ptr)};
  tm_slice port = {colon + 1, s.len - host.len - 1};
  int64_t n;
  if (!tm__parse_int(&n, port) || n > 65535) return false;
  bool bracketed = host.len > 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']';
  return memchr(host.ptr, ' ', host.len) == NULL &&
         (bracketed || memchr(host.ptr, ':', host.len) == NULL);
}

static bool path_ok(tm_slice s) {
  return s.len > 0 && s.ptr[0] != ':' && (s.len < 5 || strncasecmp(s.ptr, "file:", 5) != 0);
}

static bool form_ok(const tm_key *key, tm_slice text) {
  switch (key->form) {
  case TM_FORM_PATH: return path_ok(text);
  case TM_FORM_NAME: return name_ok(text);
  case TM_FORM_ADDRESS: return address_ok(text);
  case TM_FORM_ANY:
  case TM_FORM_SECONDS: break;
  }
  return true;
}

/* Text that can be kept: not too long, UTF-8, no NUL. */
static bool keepable(const tm_key *key, tm_slice text, tm_buf *why) {
  size_t most = key->secret ? TM_SECRET_MAX : TM_VALUE_MAX;
  if (text.len > most) {
    tm__buf_printf(why, "the text has %zu bytes; at most %zu are allowed", text.len, most);
  } else if (memchr(text.ptr, '\0', text.len) != NULL) {
    tm__buf_text(why, "the text contains a NUL byte");
  } else if (!tm__utf8_valid(text)) {
    tm__buf_text(why, "the text is not valid UTF-8");
  } else {
    return true;
  }
  return false;
}

static tm_status mismatch(const tm_key *key, tm_slice text, tm_style style, tm_buf *why) {
  tm__show_mismatch(why, key, text, style);
  return TM_EINVAL;
}

static tm_status keep_text(tm_value *out, tm_slice text) {
  out->text = tm__slice_dup(text);
  return out->text == NULL ? TM_ENOMEM : TM_OK;
}

static tm_status parse_text(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                            tm_buf *why) {
  bool other = style == TM_STYLE_PLAIN && tm__plain_kind(text) != NULL;
  if (other || text.len == 0 || !form_ok(key, text)) return mismatch(key, text, style, why);
  return keep_text(out, text);
}

static tm_status parse_choice(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                              tm_buf *why) {
  const char *at = key->choices;
  tm_slice word;
  bool works;
  while (tm__key_choice(&at, &word, &works)) {
    if (word.len != text.len || strncasecmp(word.ptr, text.ptr, text.len) != 0) continue;
    if (works) return keep_text(out, word);
    tm__show(why, word);
    tm__buf_text(why, " is not supported yet; use ");
    tm__show_expected(why, key);
    return TM_EINVAL;
  }
  return mismatch(key, text, style, why);
}

static tm_status parse_bool(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                            tm_buf *why) {
  bool boolean = style != TM_STYLE_QUOTED && (is_true(text) || is_false(text));
  if (!boolean) return mismatch(key, text, style, why);
  out->number = is_true(text);
  return TM_OK;
}

static tm_status parse_number(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                              tm_buf *why) {
  bool quoted = style == TM_STYLE_QUOTED;
  bool ok = false;
  if (key->type == TM_KEY_INT) ok = !quoted && tm__parse_int(&out->number, text);
  if (key->type == TM_KEY_SIZE) ok = tm__parse_size(&out->number, text);
  if (key->type == TM_KEY_DURATION) ok = tm__parse_duration(&out->number, text);
  if (key->type == TM_KEY_NUMBER) {
    ok = !quoted && tm__parse_number(&out->real, text) && out->real >= (double)key->min &&
         out->real <= (double)key->max;
  } else {
    ok = ok && out->number >= key->min && out->number <= key->max;
  }
  if (key->form == TM_FORM_SECONDS) ok = ok && out->number % 1000 == 0;
  return ok ? TM_OK : mismatch(key, text, style, why);
}

static tm_status parse_present(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                               tm_buf *why) {
  out->present = true;
  switch (key->type) {
  case TM_KEY_TEXT: return parse_text(out, key, text, style, why);
  case TM_KEY_CHOICE: return parse_choice(out, key, text, style, why);
  case TM_KEY_BOOL: return parse_bool(out, key, text, style, why);
  case TM_KEY_INT:
  case TM_KEY_NUMBER:
  case TM_KEY_SIZE:
  case TM_KEY_DURATION: return parse_number(out, key, text, style, why);
  case TM_KEY_LIST: break;
  }
  return mismatch(key, text, style, why);
}

/* Keys that are not supported yet take the value that says what happens anyway, and no other. */
static tm_status refuse_later(const tm_value *v, const tm_key *key, tm_buf *why) {
  tm_value fallback = {0};
  if (tm__value_default(&fallback, key) != TM_OK) return TM_ENOMEM;
  bool same = tm__value_equal(v, &fallback, key);
  tm__value_free(&fallback);
  if (same) return TM_OK;
  tm__buf_printf(why, "not supported yet: %s; leave it out", key->later);
  if (key->fallback != NULL && key->fallback[0] != '\0') {
    tm__buf_printf(why, " or write %s", key->fallback);
  }
  return TM_EINVAL;
}

static tm_status finish(tm_value *out, tm_status s, const tm_key *key, tm_buf *why) {
  if (s == TM_OK && key->later != NULL) s = refuse_later(out, key, why);
  if (s == TM_OK && why->failed) s = TM_ENOMEM;
  if (s != TM_OK) tm__value_free(out);
  return s;
}

tm_status tm__value_scalar(tm_value *out, const tm_key *key, tm_slice text, tm_style style,
                           tm_buf *why) {
  *out = (tm_value){0};
  bool nothing = style == TM_STYLE_PLAIN ? is_null(text) : text.len == 0;
  if (nothing && key->fallback == NULL) return TM_OK;
  if (!keepable(key, text, why)) return TM_EINVAL;
  return finish(out, parse_present(out, key, text, style, why), key, why);
}

static tm_status keep_items(tm_value *out, const tm_key *key, const tm_slice *items, size_t count,
                            tm_buf *why) {
  bool number_ok = (int64_t)count >= key->min && (int64_t)count <= key->max;
  if (!number_ok) {
    tm__buf_text(why, "expected ");
    tm__show_expected(why, key);
    tm__buf_printf(why, ", got %zu", count);
    return TM_EINVAL;
  }
  out->items = calloc(count + 1, sizeof(*out->items));
  if (out->items == NULL) return TM_ENOMEM;
  for (size_t i = 0; i < count; i++) {
    if (!keepable(key, items[i], why)) return TM_EINVAL;
    if (items[i].len == 0) {
      tm__buf_printf(why, "item %zu of the list is empty", i + 1);
      return TM_EINVAL;
    }
    out->items[i] = tm__slice_dup(items[i]);
    if (out->items[i] == NULL) return TM_ENOMEM;
    out->count++;
  }
  return TM_OK;
}

tm_status tm__value_list(tm_value *out, const tm_key *key, const tm_slice *items, size_t count,
                         tm_buf *why) {
  *out = (tm_value){.present = true};
  return finish(out, keep_items(out, key, items, count, why), key, why);
}

static bool same_text(const char *a, const char *b) {
  return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

bool tm__value_equal(const tm_value *a, const tm_value *b, const tm_key *key) {
  if (a->present != b->present || a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++) {
    if (strcmp(a->items[i], b->items[i]) != 0) return false;
  }
  bool same_real = key->type != TM_KEY_NUMBER || (a->real <= b->real && a->real >= b->real);
  return a->number == b->number && same_real && same_text(a->text, b->text);
}

/* Defaults are written in keys.def and hold one item at most; a test parses each. */
tm_status tm__value_default(tm_value *out, const tm_key *key) {
  tm_buf why = {0};
  tm_key plain = *key;
  plain.later = NULL;
  *out = (tm_value){0};
  tm_status s = TM_OK;
  if (key->type == TM_KEY_LIST) {
    tm_slice item = tm__slice(key->fallback);
    s = tm__value_list(out, &plain, &item, item.len > 0 ? 1 : 0, &why);
  } else if (key->fallback != NULL) {
    s = tm__value_scalar(out, &plain, tm__slice(key->fallback), TM_STYLE_LOOSE, &why);
  }
  tm__buf_free(&why);
  return s;
}
