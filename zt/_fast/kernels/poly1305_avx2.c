/* Poly1305 with 32-bit multiplication (AVX2): five limbs of 26 bits. */
#ifdef __x86_64__
#include <immintrin.h>

#include "kernels.h"
#include "poly1305.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx2")

#define LANES 4
#define FACTOR_BITS 2
#define TOP_SHIFT 24
#define INLINE static inline __attribute__((always_inline))

typedef uint64_t vec __attribute__((vector_size(32)));
typedef struct { vec l0, l1, l2, l3, l4; } number;
/* With multiples for the wrap: 2^130 = 5. */
typedef struct { vec r0, r1, r2, r3, r4, s1, s2, s3, s4; } factor;
typedef struct { vec d0, d1, d2, d3, d4; } columns;

static const uint64_t MASK26 = (1 << 26) - 1;

/* Product of the low 32 bits. */
INLINE vec product(vec a, vec b)
{
    return (vec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}

#include "poly1305_26.h"

INLINE number load_blocks(const uint8_t *p, vec top)
{
    __m256i a = _mm256_loadu_si256((const __m256i *)p);
    __m256i b = _mm256_loadu_si256((const __m256i *)(p + 32));
    return split((vec)_mm256_unpacklo_epi64(a, b), (vec)_mm256_unpackhi_epi64(a, b), top);
}

INLINE vec lane_order(void)
{
    return (vec){0, 2, 1, 3};
}

#include "poly1305_vector.h"

ZT_POLY1305(avx2)
{
    if (n < 4 * GROUP)   /* where the powers cost more than they save */
        zt_poly1305_portable(tag, key, pieces, n);
    else
        poly1305_vector(tag, key, pieces, n);
}

ZT_TARGET_END
#endif
