/* views.h - the guide's tables, which a SQL backend has as views: their names, and what is the same
 * text in each dialect; private to persistence/.
 */
#ifndef TM_PERSISTENCE_VIEWS_H
#define TM_PERSISTENCE_VIEWS_H

#include "core/buf.h"
#include "core/err.h"

#define TM_VIEWS     4  /* conversations, steps, checkpoints, sessions: their order everywhere */
#define TM_VIEW_NAME 64 /* an identifier and its NUL */

/* The names that the configuration gives; NULL: the guide's. `taken` is what the backend's own
 * tables are called, NULL-terminated, lower case; "x*" begins so and "*x" ends so. */
tm_status tm__view_names(char out[TM_VIEWS][TM_VIEW_NAME], const char *const *names,
                         const char *const *taken, tm_error *err);

/* The statement that makes one. */
void tm__view_sql(tm_buf *b, const char *name, const char *select);

/* The first columns of the first view, of heads h. */
#define TM_VIEW_CONVERSATION                                                                       \
  "SELECT h.id AS conversation_id, h.session AS session_id, h.flow AS flow_id,"                    \
  " CASE h.status WHEN 0 THEN 'active' WHEN 1 THEN 'waiting_input' WHEN 2 THEN 'waiting_approval'" \
  "  WHEN 3 THEN 'waiting_event' WHEN 4 THEN 'waiting_agent' WHEN 5 THEN 'sleeping'"               \
  "  WHEN 6 THEN 'paused' WHEN 7 THEN 'completed' WHEN 8 THEN 'failed' WHEN 9 THEN 'expired'"      \
  "  WHEN 10 THEN 'cancelled' END AS status,"                                                      \
  " h.step AS current_step, "

#endif
