/* servers.h - an empty database of a test's own on the servers that tests/servers.sh started; part
 * of the fixture.h here and of the one in tests/journal. */
#ifndef TM_TESTS_PERSISTENCE_SERVERS_H
#define TM_TESTS_PERSISTENCE_SERVERS_H

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

static inline const char *server_of(const char *variable) {
  const char *at = getenv(variable);
  if (at == NULL) fail_msg("%s is not set: run this through tests/servers.sh", variable);
  return at;
}

/* ---- redis: a database per process ---- */

/* A command in it, with `text` for its %s. */
static inline void redis_run(const char *command, const char *text) {
  char name[64] = "";
  int port = 0;
  assert_int_equal(sscanf(server_of("TIDEMILL_TEST_REDIS"), "%63[^:]:%d", name, &port), 2);
  redisContext *c = redisConnect(name, port);
  assert_true(c != NULL && c->err == 0);
  freeReplyObject(redisCommand(c, "SELECT %d", (int)(getpid() % 1024)));
  redisReply *r = redisCommand(c, command, text);
  assert_true(r != NULL && r->type == REDIS_REPLY_STATUS);
  freeReplyObject(r);
  redisFree(c);
}

static inline void redis_clear(void) {
  redis_run("FLUSHDB %s", "SYNC");
}

static inline void place_redis(fixture *fx) {
  redis_clear();
  (void)snprintf(fx->url, sizeof(fx->url), "%s/%d", server_of("TIDEMILL_TEST_REDIS"),
                 (int)(getpid() % 1024));
  fx->options.location = fx->url;
  fx->options.timeout_ms = 5000; /* of a server's answer, not of a lock */
}

static inline void unplace_redis(fixture *fx) {
  (void)fx;
  redis_clear();
}

/* ---- postgres: a database per test ---- */

static inline void postgres_run(const char *sql) {
  PGconn *c = PQconnectdb(server_of("TIDEMILL_TEST_POSTGRES"));
  PGresult *r = PQexec(c, sql);
  if (PQresultStatus(r) != PGRES_COMMAND_OK) fail_msg("%s: %s", sql, PQerrorMessage(c));
  PQclear(r);
  PQfinish(c);
}

static inline void place_postgres(fixture *fx) {
  static int made;
  char sql[128];
  const char *url = server_of("TIDEMILL_TEST_POSTGRES");
  int len = (int)(strrchr(url, '/') - url);
  int n = snprintf(fx->url, sizeof(fx->url), "%.*s/t%d_%d", len, url, (int)getpid(), made++);
  assert_in_range(n, 1, sizeof(fx->url) - 1);
  (void)snprintf(sql, sizeof(sql), "CREATE DATABASE %s", strrchr(fx->url, '/') + 1);
  postgres_run(sql);
  fx->options.location = fx->url;
  fx->options.timeout_ms = 10000;
}

static inline void unplace_postgres(fixture *fx) {
  char sql[128];
  (void)snprintf(sql, sizeof(sql), "DROP DATABASE %s WITH (FORCE)", strrchr(fx->url, '/') + 1);
  postgres_run(sql);
}

#endif
