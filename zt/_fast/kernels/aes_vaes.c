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
#define INLINE static inline __attribute__((always_inline))
#define REVERSAL _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

typedef __m256i vec;

INLINE vec load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store(void *p, vec x) { _mm256_storeu_si256((__m256i *)p, x); }
INLINE vec xor_(vec a, vec b) { return _mm256_xor_si256(a, b); }
INLINE vec broadcast(__m128i x) { return _mm256_broadcastsi128_si256(x); }
INLINE vec aes_round(vec x, vec key) { return _mm256_aesenc_epi128(x, key); }
INLINE vec aes_last(vec x, vec key) { return _mm256_aesenclast_epi128(x, key); }
INLINE vec reverse_blocks(vec x)
{
    return _mm256_shuffle_epi8(x, _mm256_broadcastsi128_si256(REVERSAL));
}
INLINE vec low_halves(vec a, vec b) { return _mm256_unpacklo_epi64(a, b); }
INLINE vec high_halves(vec a, vec b) { return _mm256_unpackhi_epi64(a, b); }
INLINE vec add_counters(vec a, vec b) { return _mm256_add_epi32(a, b); }
INLINE vec lane_numbers(void) { return _mm256_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0); }
INLINE __m128i fold(vec x)
{
    return _mm_xor_si128(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
INLINE vec lowest(__m128i x) { return _mm256_zextsi128_si256(x); }
INLINE vec clmul_low(vec a, vec b) { return _mm256_clmulepi64_epi128(a, b, 0x00); }
INLINE vec clmul_high(vec a, vec b) { return _mm256_clmulepi64_epi128(a, b, 0x11); }

#include "aes_x86.h"

ZT_TARGET_END
#endif
