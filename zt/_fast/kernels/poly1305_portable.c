/* Poly1305 on 64-bit words: the accumulator is h0 + 2^64 h1 + 2^128 h2, never fully reduced before
 * the end. The clamp of r leaves the low two bits of r1 clear, so that r1 * 2^128 is congruent to
 * r1 * 5/4, an integer (RFC 8439, 2.5). */
#include "kernels.h"
#include "poly1305.h"
#include "reader.h"

typedef struct {
    uint64_t r0, r1;
    u128 h;
    uint64_t h2;
} accumulator;

/* h = (h + block + top * 2^128) * r for each whole block. */
static void absorb(accumulator *a, const uint8_t *p, size_t n, uint64_t top)
{
    const uint64_t r0 = a->r0, r1 = a->r1, s1 = r1 + (r1 >> 2);
    u128 h = a->h;
    uint64_t h2 = a->h2;
    for (; n >= 16; p += 16, n -= 16) {
        const u128 block = U128_MAKE(load64_le(p), load64_le(p + 8));
        h = U128_ADD(h, block);
        h2 += top + U128_LESS(h, block);

        const uint64_t h0 = U128_LOW(h), h1 = U128_HIGH(h);
        u128 d0 = U128_ADD(U128_MUL(h0, r0), U128_MUL(h1, s1));
        u128 d1 = U128_ADD(U128_ADD(U128_MUL(h0, r1), U128_MUL(h1, r0)), U128_WIDE(h2 * s1));
        d1 = U128_ADD(d1, U128_WIDE(U128_HIGH(d0)));
        uint64_t d2 = h2 * r0 + U128_HIGH(d1);

        /* 2^130 = 5: what is above comes back times 5, as c + c/4 with c a multiple of 4 */
        const u128 wrap = U128_WIDE((d2 & ~3ULL) + (d2 >> 2));
        h = U128_ADD(U128_MAKE(U128_LOW(d0), U128_LOW(d1)), wrap);
        h2 = (d2 & 3) + U128_LESS(h, wrap);
    }
    a->h = h;
    a->h2 = h2;
}

ZT_POLY1305(portable)
{
    accumulator a = {
        .r0 = load64_le(key) & ZT_CLAMP_LOW,
        .r1 = load64_le(key + 8) & ZT_CLAMP_HIGH,
        .h = U128_WIDE(0),
    };
    zt_reader r = zt_reader_start(pieces);
    uint8_t block[16];
    while (n >= 16) {
        size_t step = r.left >= 16 ? r.left & ~(size_t)15 : 16;
        absorb(&a, zt_read(&r, step, block), step, 1);
        n -= step;
    }
    if (n) {
        memset(block, 0, sizeof block);
        zt_read_across(&r, n, block);
        block[n] = 1;
        absorb(&a, block, 16, 0);
    }
    zt_poly1305_finish(U128_LOW(a.h), U128_HIGH(a.h), a.h2, key + 16, tag);
    zt_wipe(&a, sizeof a);
}
