/* access.c - chooses the store that has a conversation. */
#include "journal/access.h"

static const tm_store_backend *backend_of(const tm_store_access *a, bool in_memory) {
  return in_memory ? a->memory_backend : a->backend;
}

static tm_store_conn *conn_of(const tm_store_access *a, bool in_memory) {
  return in_memory ? a->memory_conn : a->conn;
}

tm_status tm__access_head(const tm_store_access *a, tm_slice id, tm_head *out, bool *in_memory,
                          tm_error *err) {
  *in_memory = true;
  tm_status status = a->memory_backend->head(a->memory_conn, id, out, err);
  if (status != TM_ENOTFOUND) return status;
  *in_memory = false;
  return a->backend->head(a->conn, id, out, err);
}

tm_status tm__access_chain(const tm_store_access *a, bool in_memory, const tm_head *head,
                           int64_t row, bool follow_base, tm_row_fn fn, void *ud, tm_error *err) {
  return backend_of(a, in_memory)
      ->chain(conn_of(a, in_memory), tm__slice(head->id), row, follow_base, fn, ud, err);
}

tm_status tm__access_list(const tm_store_access *a, bool in_memory, const tm_list_filter *f,
                          tm_head_fn fn, void *ud, tm_error *err) {
  return backend_of(a, in_memory)->list(conn_of(a, in_memory), f, fn, ud, err);
}

tm_status tm__access_start_key(const tm_store_access *a, tm_slice tenant, uint64_t key,
                               tm_start_key *out, tm_error *err) {
  tm_status status = a->memory_backend->start_key(a->memory_conn, tenant, key, out, err);
  return status == TM_ENOTFOUND ? a->backend->start_key(a->conn, tenant, key, out, err) : status;
}
