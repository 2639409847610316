/* Poly1305 on 64-bit words: the accumulator is h0 + 2^64 h1 + 2^128 h2, never fully reduced before
 * the end. The clamp of r leaves the low two bits of r1 clear, so that r1 * 2^128 is congruent to
 * r1 * 5/4, an integer (RFC 8439, 2.5). */
#include "bytes.h"
#include "kernels.h"

#ifdef __SIZEOF_INT128__
typedef unsigned __int128 u128;
#define MUL(a, b) ((u128)(a) * (b))
#define ADD(a, b) ((a) + (b))
#define LOW(a) ((uint64_t)(a))
#define HIGH(a) ((uint64_t)((a) >> 64))
#define WIDE(a) ((u128)(a))
#else
typedef struct { uint64_t low, high; } u128;
static inline u128 WIDE(uint64_t a) { return (u128){a, 0}; }
static inline u128 ADD(u128 a, u128 b)
{
    uint64_t low = a.low + b.low;
    return (u128){low, a.high + b.high + (low < a.low)};
}
static inline u128 MUL(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t mid = a1 * b0 + (a0 * b0 >> 32);
    uint64_t mid2 = a0 * b1 + (uint32_t)mid;
    return (u128){mid2 << 32 | (uint32_t)(a0 * b0), a1 * b1 + (mid >> 32) + (mid2 >> 32)};
}
#define LOW(a) ((a).low)
#define HIGH(a) ((a).high)
#endif

typedef struct {
    uint64_t r0, r1;
    uint64_t h0, h1, h2;
} accumulator;

/* h = (h + block + top * 2^128) * r for each whole block. */
static void absorb(accumulator *a, const uint8_t *p, size_t n, uint64_t top)
{
    const uint64_t r0 = a->r0, r1 = a->r1, s1 = r1 + (r1 >> 2);
    uint64_t h0 = a->h0, h1 = a->h1, h2 = a->h2;
    for (; n >= 16; p += 16, n -= 16) {
        u128 t = ADD(WIDE(h0), WIDE(load64_le(p)));
        h0 = LOW(t);
        t = ADD(ADD(WIDE(h1), WIDE(load64_le(p + 8))), WIDE(HIGH(t)));
        h1 = LOW(t);
        h2 += HIGH(t) + top;

        u128 d0 = ADD(MUL(h0, r0), MUL(h1, s1));
        u128 d1 = ADD(ADD(MUL(h0, r1), MUL(h1, r0)), WIDE(h2 * s1));
        uint64_t d2 = h2 * r0;
        h0 = LOW(d0);
        d1 = ADD(d1, WIDE(HIGH(d0)));
        h1 = LOW(d1);
        d2 += HIGH(d1);
        /* 2^130 = 5: what is above comes back times 5, as c + c/4 with c a multiple of 4 */
        h2 = d2 & 3;
        t = ADD(WIDE(h0), WIDE((d2 & ~3ULL) + (d2 >> 2)));
        h0 = LOW(t);
        t = ADD(WIDE(h1), WIDE(HIGH(t)));
        h1 = LOW(t);
        h2 += HIGH(t);
    }
    a->h0 = h0;
    a->h1 = h1;
    a->h2 = h2;
}

/* tag = (h mod 2^130 - 5) + s mod 2^128 */
static void finish(const accumulator *a, const uint8_t s[16], uint8_t tag[16])
{
    u128 t = ADD(WIDE(a->h0), WIDE(5));
    uint64_t g0 = LOW(t);
    t = ADD(WIDE(a->h1), WIDE(HIGH(t)));
    uint64_t g1 = LOW(t);
    uint64_t take = 0 - ((a->h2 + HIGH(t)) >> 2);   /* all ones if h >= 2^130 - 5 */
    uint64_t h0 = (a->h0 & ~take) | (g0 & take);
    uint64_t h1 = (a->h1 & ~take) | (g1 & take);
    t = ADD(WIDE(h0), WIDE(load64_le(s)));
    store64_le(tag, LOW(t));
    store64_le(tag + 8, h1 + load64_le(s + 8) + HIGH(t));
}

ZT_POLY1305(portable)
{
    accumulator a = {
        .r0 = load64_le(key) & 0x0ffffffc0fffffffULL,
        .r1 = load64_le(key + 8) & 0x0ffffffc0ffffffcULL,
    };
    for (int i = 0; i < count; i++) {
        size_t whole = runs[i].n & ~(size_t)15, rest = runs[i].n & 15;
        absorb(&a, runs[i].src, whole, 1);
        if (rest) {
            uint8_t last[16] = {0};
            memcpy(last, runs[i].src + whole, rest);
            last[rest] = 1;
            absorb(&a, last, 16, 0);
        }
    }
    finish(&a, key + 16, tag);
    zt_wipe(&a, sizeof a);
}
