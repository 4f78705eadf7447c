/* access.h - what a store job reads with: the configured store and the one in memory, as one.
 *
 * For use inside `work` of a tm_store_job. Rows and sessions pass here on their way to the journal:
 * their texts are then plain, and their flags only say how they were stored.
 */
#ifndef TM_STORAGE_ACCESS_H
#define TM_STORAGE_ACCESS_H

#include "persistence/codec.h"
#include "storage/damage.h"

typedef struct tm_store_access { /* connections of the thread that runs the job */
  const tm_store_backend *backend, *memory_backend;
  tm_store_conn *conn;   /* where the job's tenant is stored */
  tm_store_conn *common; /* the store of all: scripts, notes, tenants. The same unless tenants have
                            stores of their own */
  tm_store_conn *memory_conn;
  tm_codec *codec;   /* of the configured store; NULL: all its bodies are plain */
  tm_damage *damage; /* where what is damaged is named */
} tm_store_access;

/* Each as the member of tm_store_backend of its name. `in_memory` says which of the two stores has
 * the conversation. */
tm_status tm__access_head(const tm_store_access *a, tm_slice id, tm_head *out, bool *in_memory,
                          tm_error *err); /* looks in memory first */
/* Neither store has it any more; false also when that cannot be told. */
bool tm__access_is_gone(const tm_store_access *a, tm_slice id);
tm_status tm__access_chain(const tm_store_access *a, bool in_memory, const tm_head *head,
                           int64_t row, bool follow_base, tm_row_fn fn, void *ud, tm_error *err);
/* When the newest row was made; its body is not looked at. One that is damaged is named in the log,
 * and *out is when the conversation was made. */
tm_status tm__access_updated(const tm_store_access *a, bool in_memory, const tm_head *head,
                             int64_t *out, tm_error *err);
/* The revision of the newest row, whose body is not looked at; 0: it cannot be read. */
int64_t tm__access_newest(const tm_store_access *a, bool in_memory, const tm_head *head);
/* May what is to be sealed still be plain, because sealing was turned on later? */
bool tm__access_takes_plaintext(const tm_store_access *a);
/* Heads that are damaged are named in the log; only list() gives them. */
tm_status tm__access_list(const tm_store_access *a, bool in_memory, const tm_list_filter *f,
                          tm_head_fn fn, void *ud, tm_error *err);
tm_status tm__access_due(const tm_store_access *a, bool in_memory, int64_t now, int64_t hold_ms,
                         size_t limit, tm_head_fn fn, void *ud, tm_error *err);
tm_status tm__access_ended(const tm_store_access *a, bool in_memory, int64_t before, size_t limit,
                           tm_head_fn fn, void *ud, tm_error *err);
void tm__access_name_session(const tm_store_access *a, const tm_session *s); /* once in the log */
/* The texts of one that cannot be opened are NULL, its `fault` says why, as does the log. */
tm_status tm__access_session(const tm_store_access *a, bool in_memory, tm_slice tenant, tm_slice id,
                             tm_session_fn fn, void *ud, tm_error *err);
tm_status tm__access_sessions(const tm_store_access *a, bool in_memory, const tm_session_filter *f,
                              tm_session_fn fn, void *ud, tm_error *err);
/* Bodies are plain; one that cannot be read is given as ptr NULL, its note says why. */
tm_status tm__access_take_events(const tm_store_access *a, bool in_memory, int64_t now,
                                 int64_t until, size_t limit, tm_outgoing_fn fn, void *ud,
                                 tm_error *err);
/* Likewise, newest first. */
tm_status tm__access_events(const tm_store_access *a, bool in_memory, const tm_outgoing_filter *f,
                            tm_outgoing_fn fn, void *ud, tm_error *err);
/* Of `event` the tenant is read as well; where tenants have stores of their own the store of all
 * knows afterwards when the next one is due. */
tm_status tm__access_settle_event(const tm_store_access *a, bool in_memory,
                                  const tm_outgoing *event, tm_outcome outcome, int64_t at,
                                  tm_error *err);
tm_status tm__access_next_event(const tm_store_access *a, bool in_memory, int64_t *out,
                                tm_error *err);
tm_status tm__access_start_key(const tm_store_access *a, tm_slice tenant, uint64_t key,
                               tm_start_key *out, tm_error *err); /* looks in memory first */

#endif
