#ifdef __x86_64__
#include <immintrin.h>

#include "kernels.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx2")

#define INLINE static inline __attribute__((always_inline))

/* Sums of 32-bit words in 64-bit lanes, two per load: these never overflow. */
INLINE __m256i add_words(__m256i sum, __m256i x)
{
    const __m256i low = _mm256_set1_epi64x(0xffffffff);
    sum = _mm256_add_epi64(sum, _mm256_and_si256(x, low));
    return _mm256_add_epi64(sum, _mm256_srli_epi64(x, 32));
}

INLINE uint64_t checksum(uint8_t *dst, const uint8_t *src, size_t n)
{
    __m256i a = _mm256_setzero_si256(), b = a;
    for (; n >= 64; src += 64, n -= 64) {
        __m256i x = _mm256_loadu_si256((const __m256i *)src);
        __m256i y = _mm256_loadu_si256((const __m256i *)(src + 32));
        if (dst) {
            _mm256_storeu_si256((__m256i *)dst, x);
            _mm256_storeu_si256((__m256i *)(dst + 32), y);
            dst += 64;
        }
        a = add_words(a, x);
        b = add_words(b, y);
    }
    a = _mm256_add_epi64(a, b);
    __m128i s = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    uint64_t sum = (uint64_t)_mm_cvtsi128_si64(s) + (uint64_t)_mm_extract_epi64(s, 1);
    return sum + (dst ? zt_copy_checksum_portable(dst, src, n) : zt_checksum_portable(src, n));
}

ZT_CHECKSUM(avx2) { return checksum(NULL, src, n); }

ZT_COPY_CHECKSUM(avx2) { return n ? checksum(dst, src, n) : 0; }

ZT_TARGET_END
#endif
