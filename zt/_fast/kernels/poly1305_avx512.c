/* Poly1305 with 52-bit multiply-add (AVX-512 IFMA): three limbs of 44, 44 and 42 bits. */
#ifdef __x86_64__
#include <immintrin.h>

#include "kernels.h"
#include "poly1305.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx512f,avx512vl,avx512dq,avx512ifma")

#define LANES 8
#define FACTOR_BITS 3
#define TOP_SHIFT 40
#define INLINE static inline __attribute__((always_inline))

typedef uint64_t vec __attribute__((vector_size(64)));
typedef struct { vec l0, l1, l2; } number;
/* With multiples for the wrap: 2^132 = 20. */
typedef struct { vec r0, r1, r2, s1, s2; } factor;
/* Low and high halves of each 104-bit term apart. */
typedef struct { vec low0, high0, low1, high1, low2, high2; } columns;

static const uint64_t MASK44 = (1ULL << 44) - 1, MASK42 = (1ULL << 42) - 1;

INLINE vec low52(vec sum, vec a, vec b)
{
    return (vec)_mm512_madd52lo_epu64((__m512i)sum, (__m512i)a, (__m512i)b);
}

INLINE vec high52(vec sum, vec a, vec b)
{
    return (vec)_mm512_madd52hi_epu64((__m512i)sum, (__m512i)a, (__m512i)b);
}

INLINE number one(void)
{
    return (number){(vec){0} + 1, (vec){0}, (vec){0}};
}

INLINE number split_r(uint64_t low, uint64_t high)
{
    const vec zero = {0};
    return (number){
        zero + (low & MASK44), zero + ((low >> 44 | high << 20) & MASK44), zero + (high >> 24),
    };
}

INLINE number choose(vec mask, number a, number b)
{
    return (number){
        (a.l0 & mask) | (b.l0 & ~mask), (a.l1 & mask) | (b.l1 & ~mask),
        (a.l2 & mask) | (b.l2 & ~mask),
    };
}

INLINE number add(number a, number b)
{
    return (number){a.l0 + b.l0, a.l1 + b.l1, a.l2 + b.l2};
}

INLINE factor make_factor(number n)
{
    return (factor){n.l0, n.l1, n.l2, 20 * n.l1, 20 * n.l2};
}

INLINE void multiply_add(columns *d, number h, const factor *f)
{
    d->low0 = low52(d->low0, h.l0, f->r0);
    d->low1 = low52(d->low1, h.l0, f->r1);
    d->low2 = low52(d->low2, h.l0, f->r2);
    d->high0 = high52(d->high0, h.l0, f->r0);
    d->high1 = high52(d->high1, h.l0, f->r1);
    d->high2 = high52(d->high2, h.l0, f->r2);

    d->low0 = low52(d->low0, h.l1, f->s2);
    d->low1 = low52(d->low1, h.l1, f->r0);
    d->low2 = low52(d->low2, h.l1, f->r1);
    d->high0 = high52(d->high0, h.l1, f->s2);
    d->high1 = high52(d->high1, h.l1, f->r0);
    d->high2 = high52(d->high2, h.l1, f->r1);

    d->low0 = low52(d->low0, h.l2, f->s1);
    d->low1 = low52(d->low1, h.l2, f->s2);
    d->low2 = low52(d->low2, h.l2, f->r0);
    d->high0 = high52(d->high0, h.l2, f->s1);
    d->high1 = high52(d->high1, h.l2, f->s2);
    d->high2 = high52(d->high2, h.l2, f->r0);
}

/* A high half counts 2^52 = 2^44 * 2^8 of its column. Limbs end below 2^45. */
INLINE number reduce(const columns *d)
{
    number h;
    vec carry = (d->low0 >> 44) + (d->high0 << 8);
    h.l0 = d->low0 & MASK44;
    vec t = d->low1 + carry;
    carry = (t >> 44) + (d->high1 << 8);
    h.l1 = t & MASK44;
    t = d->low2 + carry;
    carry = (t >> 42) + (d->high2 << 10);
    h.l2 = t & MASK42;
    h.l0 += carry + (carry << 2);
    h.l1 += h.l0 >> 44;
    h.l0 &= MASK44;
    return h;
}

INLINE number load_blocks(const uint8_t *p, vec top)
{
    __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
    vec low = (vec)_mm512_unpacklo_epi64(a, b), high = (vec)_mm512_unpackhi_epi64(a, b);
    return (number){low & MASK44, (low >> 44 | high << 20) & MASK44, high >> 24 | top};
}

INLINE vec lane_order(void)
{
    return (vec){0, 4, 1, 5, 2, 6, 3, 7};
}

INLINE void total(number n, uint64_t h[3])
{
    uint64_t l0 = (uint64_t)_mm512_reduce_add_epi64((__m512i)n.l0);
    uint64_t l1 = (uint64_t)_mm512_reduce_add_epi64((__m512i)n.l1);
    uint64_t l2 = (uint64_t)_mm512_reduce_add_epi64((__m512i)n.l2);
    for (int pass = 0; pass < 2; pass++) {
        l1 += l0 >> 44;
        l0 &= MASK44;
        l2 += l1 >> 44;
        l1 &= MASK44;
        l0 += (l2 >> 42) * 5;
        l2 &= MASK42;
    }
    l1 += l0 >> 44;
    l2 += l1 >> 44;
    l0 &= MASK44;
    l1 &= MASK44;
    h[0] = l0 | l1 << 44;
    h[1] = l1 >> 20 | l2 << 24;
    h[2] = l2 >> 40;
}

#include "poly1305_vector.h"

ZT_POLY1305(avx512)
{
    if (n < 2 * GROUP)   /* where the powers cost more than they save */
        zt_poly1305_portable(tag, key, pieces, n);
    else
        poly1305_vector(tag, key, pieces, n);
}

ZT_TARGET_END
#endif
