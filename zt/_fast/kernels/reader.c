#include "reader.h"

void zt_read_across(zt_reader *r, size_t n, uint8_t *out)
{
    for (;;) {
        size_t take = n < r->left ? n : r->left;
        if (take)
            memcpy(out, r->p, take);
        r->p += take;
        r->left -= take;
        out += take;
        n -= take;
        if (n == 0)
            return;
        r->piece++;
        r->p = r->piece->iov_base;
        r->left = r->piece->iov_len;
    }
}
