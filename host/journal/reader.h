/* reader.h - records and lists for people and programs; runs on the store's reader threads. */
#ifndef TM_JOURNAL_READER_H
#define TM_JOURNAL_READER_H

#include "journal/checkpoint.h"
#include "storage/storage.h"

/* Each answers `fn` exactly once, on a reader thread. Arguments are checked and copied. `listed` is
 * which checkpoints are; NULL: all of them. */
void tm__reader_conversation(tm_storage *s, tm_slice tenant, tm_slice id, tm_read what,
                             tm_slice cursor, int limit, const tm_checkpoints *listed,
                             tm_reply_fn fn, void *ud);
/* A page of what was said when `head` was stored: the newest first, beginning at its tip, or where
 * `cursor` says. */
void tm__reader_messages(tm_storage *s, const tm_head *head, tm_slice cursor, tm_reply_fn fn,
                         void *ud);
void tm__reader_list(tm_storage *s, const tm_filter *filter, tm_reply_fn fn, void *ud);

#endif
