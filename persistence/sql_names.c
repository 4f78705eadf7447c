/* sql_names.c - is what a column holds a name? */
#include "persistence/sql_names.h"

#include <sqlite3.h>

#include "persistence/store.h"

static void fits(sqlite3_context *ctx, int count, sqlite3_value **values) {
  (void)count;
  const char *bytes = sqlite3_value_blob(values[0]); /* first: it says how many there are */
  const tm_slice name = {bytes, (size_t)sqlite3_value_bytes(values[0])};
  bool is = tm__name_fits(name, (size_t)sqlite3_value_int(values[1]));
  sqlite3_result_int(ctx, is ? 1 : 0);
}

int tm__sql_names(sqlite3 *db) {
  return sqlite3_create_function(db, "fits", 2,
                                 SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, NULL, fits,
                                 NULL, NULL);
}
