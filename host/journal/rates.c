/* rates.c - shares of a minute's turns. What has been taken of a minute stands in notes of the
 * store, each for some of those who are counted: {"minute":n,"used":{"digest":n,...}}. */
#include "journal/rates.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "core/id.h"
#include "core/json.h"
#include "core/map.h"

#define MINUTE_MS INT64_C(60000)
#define NOTES     64
#define PARTS     16 /* of what is left a share is one */
#define ATTEMPTS  64 /* at a note that others write as well */

typedef struct share {
  int64_t minute, most, left;
  bool none; /* the store has no more */
} share;

struct tm_rates {
  uv_mutex_t lock;
  tm_map shares; /* by who is counted */
  int64_t minute;
};

tm_rates *tm__rates_new(void) {
  tm_rates *r = calloc(1, sizeof(*r));
  if (r == NULL) return NULL;
  if (uv_mutex_init(&r->lock) == 0) return r;
  free(r);
  return NULL;
}

/* Under the lock: those of minutes before. */
static void forget(tm_rates *r, int64_t minute) {
  size_t at = 0;
  tm_slice key;
  void *value;
  while (tm__map_next(&r->shares, &at, &key, &value)) {
    if (((const share *)value)->minute >= minute) continue;
    (void)tm__map_remove(&r->shares, key);
    free(value);
  }
  r->minute = minute;
}

void tm__rates_free(tm_rates *r) {
  if (r == NULL) return;
  forget(r, INT64_MAX);
  tm__map_free(&r->shares);
  uv_mutex_destroy(&r->lock);
  free(r);
}

/* The clock of another host may be a little ahead; one that is far away is not believed. */
static bool is_good(int64_t minute, int64_t now) {
  return minute == now / MINUTE_MS || minute == now / MINUTE_MS + 1;
}

/* Under the lock; NULL: the host has asked for nothing yet. */
static share *find(tm_rates *r, tm_slice who, int64_t most, int64_t now) {
  if (now / MINUTE_MS != r->minute) forget(r, now / MINUTE_MS);
  share *s = tm__map_get(&r->shares, who);
  return s != NULL && s->most == most && is_good(s->minute, now) ? s : NULL;
}

tm_rate tm__rates_take(tm_rates *r, tm_slice who, int64_t most, int64_t now, int64_t *minute) {
  uv_mutex_lock(&r->lock);
  share *s = find(r, who, most, now);
  tm_rate rate = s != NULL && s->left > 0 ? TM_RATE_TAKEN
                 : s != NULL && s->none   ? TM_RATE_NONE
                                          : TM_RATE_ASK;
  if (s != NULL && rate == TM_RATE_TAKEN) {
    s->left--;
    *minute = s->minute;
  }
  uv_mutex_unlock(&r->lock);
  return rate;
}

void tm__rates_return(tm_rates *r, tm_slice who, int64_t most, int64_t minute) {
  uv_mutex_lock(&r->lock);
  share *s = tm__map_get(&r->shares, who);
  if (s != NULL && s->most == most && s->minute == minute) s->left++;
  uv_mutex_unlock(&r->lock);
}

int64_t tm__rates_wait(int64_t now) {
  return MINUTE_MS - now % MINUTE_MS;
}

static bool keep(tm_rates *r, tm_slice who, const share *got) {
  uv_mutex_lock(&r->lock);
  share *s = tm__map_get(&r->shares, who);
  bool known = s != NULL;
  if (!known) s = malloc(sizeof(*s));
  bool ok = s != NULL && (known || tm__map_set(&r->shares, who, s));
  if (ok) {
    int64_t left = known && s->minute == got->minute && s->most == got->most ? s->left : 0;
    *s = *got;
    s->left += left;
  } else if (!known) {
    free(s);
  }
  uv_mutex_unlock(&r->lock);
  return ok;
}

/* ---- the note ---- */

typedef struct place {
  char note[16], field[20];
} place;

static void find_place(place *p, tm_slice who) {
  uint64_t digest = tm__digest_u64(&who, 1);
  (void)snprintf(p->note, sizeof(p->note), "rate.%02x", (unsigned)(digest % NOTES));
  (void)snprintf(p->field, sizeof(p->field), "%016llx", (unsigned long long)digest);
}

/* The note as it will be; `was` empty: of this minute there is nothing yet. */
static void write_note(tm_buf *out, tm_slice was, const char *field, int64_t minute, int64_t used) {
  tm_json_walk w;
  tm_slice key, value;
  tm__buf_byte(out, '{');
  tm__json_member_int(out, "minute", minute);
  tm__json_key(out, "used");
  tm__buf_byte(out, '{');
  bool more = tm__json_walk(&w, tm__json_get(was, "used"));
  while (more && tm__json_next(&w, &key, &value)) {
    char name[20];
    if (tm__slice_is(key, field) || !tm__copy(name, sizeof(name), key)) continue;
    tm__json_member_raw(out, name, value);
  }
  tm__json_member_int(out, field, used);
  tm__buf_text(out, "}}");
}

/* Takes a share of what the note says; TM_ECONFLICT: another host was faster. */
static tm_status try_note(const tm_store_access *a, const place *p, int64_t now, share *got,
                          tm_error *err) {
  tm_buf was = {0}, will = {0};
  tm_slice note = tm__slice(p->note);
  tm_status status = a->backend->note_get(a->common, note, &was, err);
  bool is_new = status == TM_ENOTFOUND;
  int64_t minute = tm__json_get_int(tm__buf_view(&was), "minute", 0);
  bool good = is_good(minute, now);
  tm_slice kept = good ? tm__buf_view(&was) : TM_S("{}");
  got->minute = good ? minute : now / MINUTE_MS;
  int64_t used = tm__json_get_int(tm__json_get(kept, "used"), p->field, 0);
  int64_t left = got->most > used ? got->most - used : 0;
  got->left = left == 0 ? 0 : (left - 1) / PARTS + 1;
  got->none = left == 0;
  if ((status == TM_OK || is_new) && left > 0) {
    write_note(&will, kept, p->field, got->minute, used + got->left);
    tm_slice expect = {0};
    if (!is_new) expect = tm__buf_view(&was);
    status = tm__buf_ok(&will)
                 ? a->backend->note_swap(a->common, note, expect, tm__buf_view(&will), err)
                 : tm__fail_memory(err, "a rate");
  }
  tm__buf_free(&was);
  tm__buf_free(&will);
  return status;
}

static bool has_share(tm_rates *r, tm_slice who, int64_t most, int64_t now) {
  uv_mutex_lock(&r->lock);
  const share *s = find(r, who, most, now);
  bool has = s != NULL && (s->left > 0 || s->none);
  uv_mutex_unlock(&r->lock);
  return has;
}

tm_status tm__rates_fetch(tm_rates *r, const tm_store_access *a, tm_slice who, int64_t most,
                          int64_t now, tm_error *err) {
  place p;
  share got = {.most = most};
  tm_status status = TM_ECONFLICT;
  if (has_share(r, who, most, now)) return TM_OK;
  find_place(&p, who);
  for (int i = 0; i < ATTEMPTS && status == TM_ECONFLICT; i++)
    status = try_note(a, &p, now, &got, err);
  if (status == TM_ECONFLICT)
    return tm__fail(err, TM_EUNAVAILABLE, "store.busy",
                    "other hosts count turns at the same moment all the time; try again");
  if (status != TM_OK) return status;
  return keep(r, who, &got) ? TM_OK : tm__fail_memory(err, "a rate");
}
