/* Reading a message that lies in pieces, in steps that suit a kernel. */
#ifndef ZT_READER_H
#define ZT_READER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

typedef struct {
    const struct iovec *piece;   /* current; the pieces are borrowed */
    const uint8_t *p;            /* next byte in it */
    size_t left;                 /* bytes left in it */
} zt_reader;

static inline zt_reader zt_reader_start(const struct iovec *pieces)
{
    return (zt_reader){pieces, (const uint8_t *)pieces->iov_base, pieces->iov_len};
}

/* Copies the next n bytes of the message, of which there must be as many left. */
void zt_read_across(zt_reader *r, size_t n, uint8_t *out);

/* The next n bytes of the message: in place if one piece holds them all, else copied to `out`. */
static inline const uint8_t *zt_read(zt_reader *r, size_t n, uint8_t *out)
{
    if (r->left >= n) {
        const uint8_t *p = r->p;
        r->p += n;
        r->left -= n;
        return p;
    }
    zt_read_across(r, n, out);
    return out;
}

static inline size_t zt_total(const struct iovec *pieces, int count)
{
    size_t n = 0;
    for (int i = 0; i < count; i++)
        n += pieces[i].iov_len;
    return n;
}

#endif
