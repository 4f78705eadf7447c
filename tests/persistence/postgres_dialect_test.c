/* What is asked of a server, as far as the texts of the statements show it: the databases that
 * speak PostgreSQL's language know less of it. docs/postgres.md lists it, and the list is true. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "persistence/store_postgres.h"

#define SOURCES "persistence/store_postgres*.[cd]*"
#define MANUAL  "docs/postgres.md"
#define WORD    48

static const struct statement {
  const char *name, *sql;
} statements[] = {
#define STATEMENT(name, types, text) {#name, text},
#include "persistence/store_postgres.def"
#undef STATEMENT
};
#define STATEMENTS (sizeof(statements) / sizeof(statements[0]))

/* ---- sets of words ---- */

typedef struct words {
  size_t count;
  char text[160][WORD];
} words;

static bool has(const words *w, const char *word) {
  for (size_t i = 0; i < w->count; i++)
    if (strcmp(w->text[i], word) == 0) return true;
  return false;
}

static void add(words *w, const char *from, size_t len) {
  char word[WORD];
  assert_true(len < sizeof(word));
  memcpy(word, from, len);
  word[len] = '\0';
  if (has(w, word)) return;
  assert_true(w->count < sizeof(w->text) / sizeof(w->text[0]));
  memcpy(w->text[w->count++], word, sizeof(word));
}

static size_t word_len(const char *p) {
  size_t len = 0;
  while (isalnum((unsigned char)p[len]) || p[len] == '_')
    len++;
  return len;
}

/* Every word of `text`, which `fn` is told the place of; what stands between quotes is none. */
static void each_word(const char *text, void (*fn)(void *ud, const char *at, size_t len),
                      void *ud) {
  bool quoted = false;
  for (const char *p = text; *p != '\0';) {
    size_t len = word_len(p);
    if (*p == '\'') quoted = !quoted;
    if (len > 0 && !quoted) fn(ud, p, len);
    p += len > 0 ? len : 1;
  }
}

/* ---- what a statement changes ---- */

typedef struct changes {
  const char *statement;
  char before[2][WORD]; /* the words before this one, the last one first */
  words tables;
} changes;

static void see_change(void *ud, const char *at, size_t len) {
  changes *c = ud;
  const char *last = c->before[0], *other = c->before[1];
  bool into = strcmp(last, "INTO") == 0 && strcmp(other, "INSERT") == 0;
  bool from = strcmp(last, "FROM") == 0 && strcmp(other, "DELETE") == 0;
  bool update = strcmp(last, "UPDATE") == 0 && strcmp(other, "FOR") != 0 &&
                strcmp(other, "DO") != 0; /* of a lock, of a conflict */
  if (into || from || update) {
    size_t count = c->tables.count;
    add(&c->tables, at, len);
    if (c->tables.count == count)
      fail_msg("%s changes the table %.*s twice", c->statement, (int)len, at);
  }
  memcpy(c->before[1], c->before[0], sizeof(c->before[0]));
  (void)snprintf(c->before[0], sizeof(c->before[0]), "%.*s", (int)len, at);
}

/* CockroachDB refuses to prepare one that does, and everything is prepared with a connection. */
static void no_statement_changes_a_table_twice(void **state) {
  size_t changing = 0;
  (void)state;
  for (size_t i = 0; i < STATEMENTS; i++) {
    changes c = {.statement = statements[i].name};
    each_word(statements[i].sql, see_change, &c);
    changing += c.tables.count > 0;
  }
  assert_true(changing > 20);
}

/* ---- what the sources use ---- */

static char *read_file(const char *path) {
  tm_buf b = {0};
  char piece[4096];
  FILE *f = fopen(path, "r");
  if (f == NULL) fail_msg("%s: run this in the project's folder", path);
  for (size_t n; (n = fread(piece, 1, sizeof(piece), f)) > 0;)
    tm__buf_add(&b, piece, n);
  (void)fclose(f);
  tm__buf_byte(&b, '\0');
  assert_true(tm__buf_ok(&b));
  return b.ptr;
}

typedef struct used {
  words functions, types, keywords, tables;
} used;

static bool is_name(const char *p, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (!islower((unsigned char)p[i]) && !isdigit((unsigned char)p[i]) && p[i] != '_') return false;
  return len > 0 && islower((unsigned char)p[0]);
}

static bool is_keyword(const char *p, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (!isupper((unsigned char)p[i])) return false;
  return len > 1;
}

static bool follows(const char *text, const char *at, const char *before) {
  size_t len = strlen(before);
  return (size_t)(at - text) >= len && memcmp(at - len, before, len) == 0;
}

typedef struct literal {
  used *u;
  const char *text;
} literal;

static void see_word(void *ud, const char *p, size_t len) {
  const literal *l = ud;
  used *u = l->u;
  bool named = follows(l->text, p, "CREATE TABLE ");
  if (is_name(p, len) && named) add(&u->tables, p, len);
  if (is_name(p, len) && follows(l->text, p, "::")) add(&u->types, p, len);
  if (is_name(p, len) && p[len] == '(' && !named && !follows(l->text, p, "AS ") &&
      !follows(l->text, p, "INTO ") && !follows(l->text, p, " ON "))
    add(&u->functions, p, len);
  if (is_keyword(p, len)) add(&u->keywords, p, len);
}

/* A literal of C: gives what follows it. */
static const char *see_literal(used *u, const char *open) {
  const char *end = open + 1;
  char text[1024];
  const literal l = {u, text};
  while (*end != '"' && *end != '\0')
    end += *end == '\\' ? 2 : 1;
  (void)snprintf(text, sizeof(text), "%.*s", (int)(end - open - 1), open + 1);
  each_word(text, see_word, (void *)(uintptr_t)&l);
  return *end == '"' ? end + 1 : end;
}

static void see_source(used *u, const char *path) {
  char *text = read_file(path);
  for (const char *p = text; *p != '\0';) {
    if (strncmp(p, "/*", 2) == 0) {
      p = strstr(p, "*/") + 2;
    } else if (strncmp(p, "#include", 8) == 0 || *p == '\'') { /* a character of C is one */
      p += *p == '\'' ? (p[1] == '\\' ? 4 : 3) : (ptrdiff_t)strcspn(p, "\n");
    } else {
      p = *p == '"' ? see_literal(u, p) : p + 1;
    }
  }
  free(text);
}

/* Messages to people are not SQL. */
static bool is_prose(const char *path) {
  return strstr(path, "_error.c") != NULL || strstr(path, "_place.c") != NULL;
}

static void see_sources(used *prepared, used *others) {
  glob_t found;
  assert_int_equal(glob(SOURCES, 0, NULL, &found), 0);
  assert_true(found.gl_pathc > 10);
  for (size_t i = 0; i < found.gl_pathc; i++) {
    const char *path = found.gl_pathv[i];
    if (!is_prose(path)) see_source(strstr(path, ".def") != NULL ? prepared : others, path);
  }
  globfree(&found);
}

/* ---- what the manual says ---- */

/* The words between backticks in the manual's list, of all its points or of the one that begins so.
 */
static void see_manual(words *out, const char *point) {
  char *text = read_file(MANUAL);
  char *from = strstr(text, "\n## Features used\n");
  assert_non_null(from);
  char *end = strstr(from, "\nNot used:");
  if (point != NULL) {
    from = strstr(from, point);
    assert_non_null(from); /* the manual has no such point */
    end = strstr(from, "\n- ");
  }
  assert_non_null(end);
  *end = '\0';
  bool code = false;
  for (const char *p = from; *p != '\0';) {
    size_t len = word_len(p);
    if (*p == '`') code = !code;
    if (len > 0 && code) add(out, p, len);
    p += len > 0 ? len : 1;
  }
  free(text);
}

static void assert_within(const words *some, const words *all, const words *but, const char *what,
                          const char *where) {
  for (size_t i = 0; i < some->count; i++)
    if (!has(all, some->text[i]) && (but == NULL || !has(but, some->text[i])))
      fail_msg("the %s %s is not in %s", what, some->text[i], where);
}

/* The names of functions that the manual's point has are those that are called, neither more nor
 * less. */
static void compare_functions(const used *u, const words *besides, const used *all,
                              const char *point) {
  static words told;
  words but = all->tables;
  told.count = 0;
  see_manual(&told, point);
  for (size_t i = 0; besides != NULL && i < besides->count; i++)
    add(&but, besides->text[i], strlen(besides->text[i]));
  assert_within(&u->functions, &told, &but, "function", MANUAL);
  assert_within(&told, &u->functions, NULL, "function", "the statements");
}

/* Words that every SQL has. */
static const char plain[] =
    "SELECT FROM WHERE AND OR NOT NULL IS IN EXISTS AS BY ORDER DESC LIMIT CASE WHEN THEN ELSE END "
    "INSERT INTO VALUES UPDATE SET DELETE JOIN LEFT ON BEGIN COMMIT ROLLBACK "
    "CREATE TABLE INDEX VIEW SCHEMA DROP IF PRIMARY KEY DEFAULT TO ISOLATION LEVEL";

/* Words of the host's messages in capital letters, which are no SQL of its own. */
static const char messages[] = "GRANT DATABASE ENCODING ALTER OWNER USAGE UTF NUL NAME OFF";

static void add_plain(void *ud, const char *at, size_t len) {
  add(ud, at, len);
}

static void the_manual_lists_what_is_used(void **state) {
  static used prepared, others, all;
  static words told;
  (void)state;
  see_sources(&prepared, &others);
  all.tables = others.tables;
  assert_true(prepared.functions.count > 3 && others.functions.count > 3 && all.tables.count > 9);
  compare_functions(&prepared, NULL, &all, "- functions in prepared statements:");
  compare_functions(&others, &prepared.functions, &all, "- other functions:");
  see_manual(&told, NULL);
  each_word(plain, add_plain, &told);
  assert_within(&prepared.types, &told, NULL, "type", MANUAL);
  assert_within(&others.types, &told, NULL, "type", MANUAL);
  assert_within(&prepared.keywords, &told, NULL, "word", MANUAL);
  each_word(messages, add_plain, &told);
  assert_within(&others.keywords, &told, NULL, "word", MANUAL);
}

int main(void) {
  const struct CMUnitTest cases[] = {
      cmocka_unit_test(no_statement_changes_a_table_twice),
      cmocka_unit_test(the_manual_lists_what_is_used),
  };
  return cmocka_run_group_tests_name("postgres dialect", cases, NULL, NULL);
}
