/* show.c - words for people: what a key expects, and what was given instead. */
#include <inttypes.h>
#include <string.h>

#include "config/value.h"

#define SHOWN 60 /* bytes of a wrong value */

void tm__show_name(tm_buf *out, tm_slice text) {
  size_t n = text.len <= SHOWN ? text.len : SHOWN;
  while (n < text.len && n > 0 && ((unsigned char)text.ptr[n] & 0xC0) == 0x80) {
    n--; /* do not cut a character */
  }
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)text.ptr[i];
    tm__buf_byte(out, c < 0x20 || c == 0x7F ? '?' : (char)c);
  }
  if (n < text.len) tm__buf_text(out, "...");
}

void tm__show(tm_buf *out, tm_slice text) {
  tm__buf_byte(out, '\'');
  tm__show_name(out, text);
  tm__buf_byte(out, '\'');
}

typedef struct step {
  const char *name;
  int64_t size;
} step;

/* In the largest unit that needs no fraction. */
static void show_units(tm_buf *out, int64_t n, const step *units) {
  while (n == 0 ? units->size != 1 : n % units->size != 0) {
    units++;
  }
  tm__buf_printf(out, "%" PRId64 "%s", n / units->size, units->name);
}

static void show_bound(tm_buf *out, const tm_key *key, int64_t n) {
  static const step sizes[] = {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}};
  static const step times[] = {
      {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
  if (key->type == TM_KEY_SIZE) {
    show_units(out, n, sizes);
  } else if (key->type == TM_KEY_DURATION && n > 0) {
    show_units(out, n, times);
  } else {
    tm__buf_printf(out, "%" PRId64, n);
  }
}

static void show_range(tm_buf *out, const tm_key *key) {
  tm__buf_text(out, " from ");
  show_bound(out, key, key->min);
  tm__buf_text(out, " to ");
  show_bound(out, key, key->max);
}

static void show_choices(tm_buf *out, const tm_key *key) {
  const char *at = key->choices;
  tm_slice word;
  bool works;
  const char *between = "";
  while (tm__key_choice(&at, &word, &works)) {
    if (!works) continue;
    tm__buf_text(out, between);
    tm__buf_slice(out, word);
    between = ", ";
  }
}

static void show_text(tm_buf *out, const tm_key *key) {
  static const char *const forms[] = {
      [TM_FORM_ANY] = "text",
      [TM_FORM_PATH] = "the path of a file or folder",
      [TM_FORM_NAME] = "a name of letters, digits and _ that begins with a letter",
      [TM_FORM_ADDRESS] = "an address such as \"127.0.0.1:8700\" or \"[::1]:8700\"",
      [TM_FORM_SECONDS] = "",
  };
  tm__buf_text(out, forms[key->form]);
}

void tm__show_expected(tm_buf *out, const tm_key *key) {
  switch (key->type) {
  case TM_KEY_TEXT: show_text(out, key); return;
  case TM_KEY_CHOICE:
    tm__buf_text(out, "one of ");
    show_choices(out, key);
    return;
  case TM_KEY_BOOL: tm__buf_text(out, "true or false"); return;
  case TM_KEY_INT: tm__buf_text(out, "an integer"); break;
  case TM_KEY_NUMBER: tm__buf_text(out, "a number"); break;
  case TM_KEY_SIZE: tm__buf_text(out, "a size in bytes, or such as \"64k\" or \"1MiB\","); break;
  case TM_KEY_DURATION:
    tm__buf_text(out, key->form == TM_FORM_SECONDS ? "a duration in whole seconds" : "a duration");
    tm__buf_text(out, ", or such as \"30s\", \"5m\" or \"2h\",");
    break;
  case TM_KEY_LIST:
    tm__buf_printf(out, "a list of %" PRId64 " to %" PRId64 " texts", key->min, key->max);
    return;
  }
  show_range(out, key);
}

static void show_hint(tm_buf *out, const tm_key *key, tm_slice text, tm_style style) {
  static const char *const yes[] = {"yes", "Yes", "YES", "no",  "No",  "NO", "on",
                                    "On",  "ON",  "off", "Off", "OFF", NULL};
  bool text_wanted = key->type == TM_KEY_TEXT;
  bool any_text = text_wanted && (key->form == TM_FORM_ANY || key->form == TM_FORM_PATH);
  if (key->type == TM_KEY_BOOL && tm__is_one_of(text, yes)) {
    tm__buf_text(out, " (yes, no, on and off are words in YAML 1.2)");
  } else if (style == TM_STYLE_QUOTED && tm__plain_kind(text) != NULL && !text_wanted) {
    tm__buf_text(out, " in quotes; remove them");
  } else if (style == TM_STYLE_PLAIN && any_text && tm__plain_kind(text) != NULL) {
    tm__buf_text(out, "; put it in quotes if it is text");
  }
}

static void show_near_choice(tm_buf *out, const tm_key *key, tm_slice text) {
  const char *at = key->choices;
  tm_slice word;
  bool works;
  while (key->type == TM_KEY_CHOICE && tm__key_choice(&at, &word, &works)) {
    if (works && tm__edit_distance(word, text) <= 3) {
      tm__buf_text(out, "; did you mean ");
      tm__show(out, word);
      tm__buf_byte(out, '?');
      return;
    }
  }
}

void tm__show_mismatch(tm_buf *out, const tm_key *key, tm_slice text, tm_style style) {
  tm__buf_text(out, "expected ");
  tm__show_expected(out, key);
  if (text.len == 0) {
    tm__buf_text(out, ", got nothing");
    return;
  }
  if (key->secret) {
    tm__buf_text(out, ", got something else (hidden)");
  } else {
    const char *kind = style == TM_STYLE_PLAIN ? tm__plain_kind(text) : NULL;
    tm__buf_printf(out, ", got %s", kind == NULL ? "" : kind);
    tm__buf_text(out, kind == NULL ? "" : " ");
    tm__show(out, text);
  }
  show_hint(out, key, text, style);
  if (!key->secret) show_near_choice(out, key, text);
}
