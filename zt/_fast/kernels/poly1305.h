/* What every Poly1305 kernel shares (RFC 8439, 2.5): 128-bit words and the final reduction. */
#ifndef ZT_POLY1305_H
#define ZT_POLY1305_H

#include "bytes.h"

/* The key's clamp of r. */
#define ZT_CLAMP_LOW 0x0ffffffc0fffffffULL
#define ZT_CLAMP_HIGH 0x0ffffffc0ffffffcULL

#ifdef __SIZEOF_INT128__
typedef unsigned __int128 u128;
#define U128_MUL(a, b) ((u128)(a) * (b))
#define U128_ADD(a, b) ((a) + (b))
#define U128_LOW(a) ((uint64_t)(a))
#define U128_HIGH(a) ((uint64_t)((a) >> 64))
#define U128_WIDE(a) ((u128)(a))
#define U128_MAKE(low, high) ((u128)(high) << 64 | (low))
#define U128_LESS(a, b) ((a) < (b))
#else
typedef struct { uint64_t low, high; } u128;
static inline u128 U128_WIDE(uint64_t a) { return (u128){a, 0}; }
static inline u128 U128_ADD(u128 a, u128 b)
{
    uint64_t low = a.low + b.low;
    return (u128){low, a.high + b.high + (low < a.low)};
}
static inline u128 U128_MUL(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t mid = a1 * b0 + (a0 * b0 >> 32);
    uint64_t mid2 = a0 * b1 + (uint32_t)mid;
    return (u128){mid2 << 32 | (uint32_t)(a0 * b0), a1 * b1 + (mid >> 32) + (mid2 >> 32)};
}
#define U128_MAKE(low, high) ((u128){low, high})
#define U128_LESS(a, b) ((a).high < (b).high || ((a).high == (b).high && (a).low < (b).low))
#define U128_LOW(a) ((a).low)
#define U128_HIGH(a) ((a).high)
#endif

/* tag = (h mod 2^130 - 5) + s mod 2^128, for h = h0 + 2^64 h1 + 2^128 h2 below 2^131 */
static inline void zt_poly1305_finish(uint64_t h0, uint64_t h1, uint64_t h2, const uint8_t s[16],
                                      uint8_t tag[16])
{
    u128 t = U128_ADD(U128_WIDE(h0), U128_WIDE(5));
    uint64_t g0 = U128_LOW(t);
    t = U128_ADD(U128_WIDE(h1), U128_WIDE(U128_HIGH(t)));
    uint64_t g1 = U128_LOW(t);
    uint64_t take = 0 - (((h2 + U128_HIGH(t)) >> 2) & 1);   /* all ones if h >= 2^130 - 5 */
    h0 = (h0 & ~take) | (g0 & take);
    h1 = (h1 & ~take) | (g1 & take);
    t = U128_ADD(U128_WIDE(h0), U128_WIDE(load64_le(s)));
    store64_le(tag, U128_LOW(t));
    store64_le(tag + 8, h1 + load64_le(s + 8) + U128_HIGH(t));
}

#endif
