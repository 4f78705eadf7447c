/* fault_vfs.h - SQLite on a disk that fails on demand: a VFS around the real one that lets the n-th
 * operation that changes something (write, truncate, sync, a larger shared index, delete) fail. */
#ifndef TM_TESTS_PERSISTENCE_FAULT_VFS_H
#define TM_TESTS_PERSISTENCE_FAULT_VFS_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static struct fault {
  int code;       /* what the operation answers; 0: the disk is good */
  int after;      /* good operations before the first bad one */
  bool for_good;  /* every later one fails too */
  bool reads_too; /* and reading */
  bool unshared;  /* files cannot be shared, so that there can be no write-ahead log */
  int met;        /* how often it failed */
} fault;

/* Atomic, for a store with threads of its own: what syncs alone answer; 0: the disk is good. */
static int fault_of_syncs;

static inline int fault_now(void) {
  if (fault.code == 0) return SQLITE_OK;
  if (fault.after > 0) {
    fault.after--;
    return SQLITE_OK;
  }
  if (fault.met > 0 && !fault.for_good) return SQLITE_OK;
  fault.met++;
  return fault.code;
}

static inline void fault_set(int code, int after, bool for_good) {
  fault = (struct fault){.code = code, .after = after, .for_good = for_good};
}

typedef struct fault_file {
  sqlite3_file base;
  sqlite3_file *real;
} fault_file;

static sqlite3_vfs *fault_real(void) {
  static sqlite3_vfs *real;
  if (real == NULL) real = sqlite3_vfs_find("unix");
  return real;
}

#define REAL(f) (((fault_file *)(void *)(f))->real)

static int fault_close(sqlite3_file *f) {
  return REAL(f)->pMethods->xClose(REAL(f));
}
static int fault_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at) {
  if (fault.reads_too && fault_now() != SQLITE_OK) return SQLITE_IOERR_READ;
  return REAL(f)->pMethods->xRead(REAL(f), p, n, at);
}
static int fault_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at) {
  int rc = fault_now();
  if (rc == SQLITE_OK) return REAL(f)->pMethods->xWrite(REAL(f), p, n, at);
  if (n > 1) (void)REAL(f)->pMethods->xWrite(REAL(f), p, n / 2, at); /* torn */
  return rc;
}
static int fault_truncate(sqlite3_file *f, sqlite3_int64 size) {
  int rc = fault_now();
  return rc != SQLITE_OK ? rc : REAL(f)->pMethods->xTruncate(REAL(f), size);
}
static int fault_sync(sqlite3_file *f, int flags) {
  int rc = __atomic_load_n(&fault_of_syncs, __ATOMIC_RELAXED);
  if (rc == SQLITE_OK) rc = fault_now();
  return rc != SQLITE_OK ? SQLITE_IOERR_FSYNC : REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int fault_size(sqlite3_file *f, sqlite3_int64 *size) {
  return REAL(f)->pMethods->xFileSize(REAL(f), size);
}
static int fault_lock(sqlite3_file *f, int level) {
  return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int fault_unlock(sqlite3_file *f, int level) {
  return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int fault_reserved(sqlite3_file *f, int *out) {
  return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int fault_control(sqlite3_file *f, int op, void *arg) {
  return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int fault_sector(sqlite3_file *f) {
  return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int fault_character(sqlite3_file *f) {
  return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int fault_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out) {
  if (extend && fault_now() != SQLITE_OK) return SQLITE_IOERR_SHMSIZE;
  return REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, out);
}
static int fault_shm_lock(sqlite3_file *f, int at, int n, int flags) {
  return REAL(f)->pMethods->xShmLock(REAL(f), at, n, flags);
}
static void fault_shm_barrier(sqlite3_file *f) {
  REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int fault_shm_unmap(sqlite3_file *f, int drop) {
  return REAL(f)->pMethods->xShmUnmap(REAL(f), drop);
}

static const sqlite3_io_methods fault_methods = {
    .iVersion = 2,
    .xClose = fault_close,
    .xRead = fault_read,
    .xWrite = fault_write,
    .xTruncate = fault_truncate,
    .xSync = fault_sync,
    .xFileSize = fault_size,
    .xLock = fault_lock,
    .xUnlock = fault_unlock,
    .xCheckReservedLock = fault_reserved,
    .xFileControl = fault_control,
    .xSectorSize = fault_sector,
    .xDeviceCharacteristics = fault_character,
    .xShmMap = fault_shm_map,
    .xShmLock = fault_shm_lock,
    .xShmBarrier = fault_shm_barrier,
    .xShmUnmap = fault_shm_unmap,
};

static const sqlite3_io_methods *fault_methods_now(void) {
  static sqlite3_io_methods unshared;
  unshared = fault_methods;
  unshared.iVersion = 1;
  return fault.unshared ? &unshared : &fault_methods;
}

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
  (void)vfs;
  fault_file *file = (fault_file *)(void *)f;
  file->base.pMethods = NULL;
  file->real = (sqlite3_file *)(void *)(file + 1);
  int rc = fault_real()->xOpen(fault_real(), name, file->real, flags, out);
  if (rc == SQLITE_OK) file->base.pMethods = fault_methods_now();
  return rc;
}
static int fault_delete(sqlite3_vfs *vfs, const char *name, int sync) {
  (void)vfs;
  int rc = fault_now();
  return rc != SQLITE_OK ? SQLITE_IOERR_DELETE : fault_real()->xDelete(fault_real(), name, sync);
}

/* From now on every SQLite handle of this program is on the failing disk. */
static inline void fault_install(void) {
  static sqlite3_vfs vfs;
  vfs = *fault_real();
  vfs.zName = "fault";
  vfs.szOsFile = (int)sizeof(fault_file) + fault_real()->szOsFile;
  vfs.xOpen = fault_open;
  vfs.xDelete = fault_delete;
  (void)sqlite3_vfs_register(&vfs, 1);
}

#endif
