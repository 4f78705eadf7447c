/* compress.c - zstd, behind the words that rows are made of: texts of a kilobyte or two are too
 * short to bring their own. They are given to zstd anew each time: it keeps a copy of a dictionary
 * only where it finds memory for it without looking (1.5.4). */
#include "persistence/compress.h"

#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define LEVEL    1
#define WORDS    1 /* the number of the newest */
#define SHORTEST 32

static const char words_1[] =
#include "persistence/compress_words.def"
    ;

struct tm_press {
  ZSTD_CCtx *writer;
  ZSTD_DCtx *reader;
};

static bool set_up(ZSTD_CCtx *writer) {
  return !ZSTD_isError(ZSTD_CCtx_setParameter(writer, ZSTD_c_compressionLevel, LEVEL)) &&
         !ZSTD_isError(ZSTD_CCtx_setParameter(writer, ZSTD_c_checksumFlag, 1));
}

tm_press *tm__press_new(void) {
  tm_press *p = calloc(1, sizeof(*p));
  if (p == NULL) return NULL;
  p->writer = ZSTD_createCCtx();
  p->reader = ZSTD_createDCtx();
  if (p->writer != NULL && p->reader != NULL && set_up(p->writer)) return p;
  tm__press_free(p);
  return NULL;
}

void tm__press_free(tm_press *p) {
  if (p == NULL) return;
  (void)ZSTD_freeCCtx(p->writer);
  (void)ZSTD_freeDCtx(p->reader);
  free(p);
}

tm_status tm__compress(tm_press *p, tm_buf *out, tm_slice text, bool *smaller) {
  *smaller = false;
  if (text.len < SHORTEST) return TM_OK;
  size_t room = ZSTD_compressBound(text.len) + 1;
  char *at = ZSTD_isError(room) ? NULL : tm__buf_room(out, room);
  if (at == NULL) return TM_ENOMEM;
  (void)ZSTD_CCtx_reset(p->writer, ZSTD_reset_session_only); /* the last one may have failed */
  size_t n = ZSTD_CCtx_refPrefix(p->writer, words_1, sizeof(words_1) - 1);
  if (!ZSTD_isError(n)) n = ZSTD_compress2(p->writer, at + 1, room - 1, text.ptr, text.len);
  if (ZSTD_isError(n)) return TM_ENOMEM; /* nothing else can go wrong */
  *smaller = n + 1 < text.len;
  if (!*smaller) return TM_OK;
  at[0] = WORDS;
  out->len += n + 1;
  return TM_OK;
}

tm_status tm__decompress(tm_press *p, tm_buf *out, tm_slice frame, size_t max) {
  if (frame.len < 2) return TM_ECORRUPT;
  if (frame.ptr[0] != WORDS) return frame.ptr[0] == 0 ? TM_ECORRUPT : TM_EUNSUPPORTED;
  const char *at = frame.ptr + 1;
  size_t len = frame.len - 1;
  unsigned long long size = ZSTD_getFrameContentSize(at, len);
  bool known = size != ZSTD_CONTENTSIZE_UNKNOWN && size != ZSTD_CONTENTSIZE_ERROR;
  if (!known || size == 0 || size > max || ZSTD_findFrameCompressedSize(at, len) != len)
    return TM_ECORRUPT;
  char *text = tm__buf_room(out, (size_t)size);
  if (text == NULL) return TM_ENOMEM;
  size_t n = ZSTD_decompress_usingDict(p->reader, text, (size_t)size, at, len, words_1,
                                       sizeof(words_1) - 1);
  if (ZSTD_isError(n))
    return ZSTD_getErrorCode(n) == ZSTD_error_memory_allocation ? TM_ENOMEM : TM_ECORRUPT;
  if (n != size) return TM_ECORRUPT;
  out->len += n;
  return TM_OK;
}
