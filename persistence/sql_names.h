/* sql_names.h - a function of SQL, for the backends that keep names in a database of SQLite: what
 * is stored may be no name, and then is in no list.
 */
#ifndef TM_PERSISTENCE_SQL_NAMES_H
#define TM_PERSISTENCE_SQL_NAMES_H

struct sqlite3;

/* fits(name, most): tm__name_fits(). Gives a code of SQLite. */
int tm__sql_names(struct sqlite3 *db);

/* Conditions: an event whose key can be read, a tenant. */
#define TM_SQL_EVENT_NAMED                                                                         \
  "fits(conversation,36) AND revision>0 AND idx BETWEEN 0 AND 2147483647 "                         \
  "AND attempts BETWEEN 0 AND 2147483646"
#define TM_SQL_TENANT_NAMED "fits(tenant,64)"

#endif
