#include "bytes.h"
#include "kernels.h"

/* Adds 32-bit words: 2^32 = 2^16 = 1 mod 0xffff, and 2^32 of them fit the sum. */
ZT_CHECKSUM(portable)
{
    uint64_t a = 0, b = 0;
    for (; n >= 8; src += 8, n -= 8) {
        a += load32(src);
        b += load32(src + 4);
    }
    uint8_t last[8] = {0};
    if (n)
        memcpy(last, src, n);
    return a + b + load32(last) + load32(last + 4);
}

ZT_COPY_CHECKSUM(portable)
{
    if (n)
        memcpy(dst, src, n);
    return zt_checksum_portable(dst, n);
}
