/* Suite 3 with 256-bit VAES and VPCLMULQDQ (CPUs with AVX2 but not AVX-512). */
#ifdef __x86_64__
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx2,aes,pclmul,vaes,vpclmulqdq")

#define LEVEL vaes
#define LANES 2
#include "aes_x86.h"

typedef uint64_t vec __attribute__((vector_size(32)));

INLINE vec load(const void *p) { return (vec)_mm256_loadu_si256((const __m256i *)p); }
INLINE void store(void *p, vec x) { _mm256_storeu_si256((__m256i *)p, (__m256i)x); }
INLINE vec broadcast(zt_block x) { return (vec)_mm256_broadcastsi128_si256((__m128i)x); }
INLINE vec reverse_blocks(vec x)
{
    return (vec)_mm256_shuffle_epi8((__m256i)x, _mm256_broadcastsi128_si256(REVERSAL));
}
INLINE vec aes_round(vec x, vec key)
{
    return (vec)_mm256_aesenc_epi128((__m256i)x, (__m256i)key);
}
INLINE vec aes_last(vec x, vec key)
{
    return (vec)_mm256_aesenclast_epi128((__m256i)x, (__m256i)key);
}
INLINE vec clmul_low(vec a, vec b)
{
    return (vec)_mm256_clmulepi64_epi128((__m256i)a, (__m256i)b, 0x00);
}
INLINE vec clmul_high(vec a, vec b)
{
    return (vec)_mm256_clmulepi64_epi128((__m256i)a, (__m256i)b, 0x11);
}
INLINE vec low_halves(vec a, vec b) { return ZT_SHUFFLE(vec, a, b, 0, 4, 2, 6); }
INLINE vec high_halves(vec a, vec b) { return ZT_SHUFFLE(vec, a, b, 1, 5, 3, 7); }
INLINE vec lane_numbers(void) { return (vec){0, 0, 1, 0}; }
INLINE zt_block fold(vec x)
{
    return (zt_block)_mm256_castsi256_si128((__m256i)x)
           ^ (zt_block)_mm256_extracti128_si256((__m256i)x, 1);
}
INLINE vec lowest(zt_block x) { return (vec)_mm256_zextsi128_si256((__m128i)x); }

#include "aes_vector.h"

ZT_TARGET_END
#endif
