/* transcript.c - what was said in a conversation, for the turn that runs: page by page, the newest
 * first, beginning at the row that was the newest when the first page was asked for. Rows never
 * change and the turn is the only one, so the same comes when it runs again after a crash. */
#include <stdlib.h>
#include <string.h>

#include "journal/reader.h"
#include "journal/slot.h"

struct tm_messages_read {
  tm_message message;
  tm_journal *journal;
  tm_messages_fn fn; /* NULL: cancelled */
  void *ud;
  tm_buf page;
  tm_status status;
  tm_error error;
};

static tm_messages_read *read_of(tm_message *m) {
  return (tm_messages_read *)((char *)m - offsetof(tm_messages_read, message));
}

/* On the worker. */
static void on_page(tm_message *m) {
  tm_messages_read *r = read_of(m);
  tm_journal *j = r->journal;
  if (r->status == TM_OK && !tm__buf_ok(&r->page))
    r->status = tm__fail_memory(&r->error, "a transcript");
  if (r->fn != NULL) r->fn(r->ud, tm__buf_view(&r->page), r->status == TM_OK ? NULL : &r->error);
  tm__buf_free(&r->page);
  free(r);
  j->pending--;
  tm__journal_check(j);
}

/* On a reader's thread, or at once where the question was wrong. */
static void on_reply(void *ud, const tm_reply *reply) {
  tm_messages_read *r = ud;
  r->status = reply->status;
  if (reply->status == TM_OK)
    tm__buf_add(&r->page, reply->json, reply->size);
  else
    r->error = *reply->error;
  tm__worker_post(r->journal->o.worker, &r->message);
}

tm_messages_read *tm__turn_messages(const tm_turn *t, tm_slice cursor, tm_messages_fn fn, void *ud,
                                    tm_error *err) {
  tm_journal *j = t->slot->journal;
  const tm_head *head = &t->slot->record.head;
  tm_messages_read *r = calloc(1, sizeof(*r));
  if (r == NULL) {
    (void)tm__fail_memory(err, "a transcript");
    return NULL;
  }
  *r = (tm_messages_read){.message.run = on_page, .journal = j, .fn = fn, .ud = ud};
  j->pending++;
  if (head->tip == 0) { /* its first turn has not written anything yet */
    tm__buf_text(&r->page, "{\"items\":[],\"next\":null}");
    tm__worker_post(j->o.worker, &r->message);
  } else {
    tm__reader_messages(j->o.storage, head, cursor, on_reply, r);
  }
  return r;
}

void tm__messages_cancel(tm_messages_read *r) {
  r->fn = NULL;
}
