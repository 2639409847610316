/* Suite 3 with 512-bit VAES and VPCLMULQDQ. */
#ifdef __x86_64__
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,bmi2,aes,pclmul,vaes,vpclmulqdq")

#define LEVEL avx512
#define LANES 4
#define INLINE static inline __attribute__((always_inline))
#define REVERSAL _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

typedef __m512i vec;

INLINE vec load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void store(void *p, vec x) { _mm512_storeu_si512(p, x); }
INLINE vec xor_(vec a, vec b) { return _mm512_xor_si512(a, b); }
INLINE vec broadcast(__m128i x) { return _mm512_broadcast_i32x4(x); }
INLINE vec aes_round(vec x, vec key) { return _mm512_aesenc_epi128(x, key); }
INLINE vec aes_last(vec x, vec key) { return _mm512_aesenclast_epi128(x, key); }
INLINE vec reverse_blocks(vec x)
{
    return _mm512_shuffle_epi8(x, _mm512_broadcast_i32x4(REVERSAL));
}
INLINE vec low_halves(vec a, vec b) { return _mm512_unpacklo_epi64(a, b); }
INLINE vec high_halves(vec a, vec b) { return _mm512_unpackhi_epi64(a, b); }
INLINE vec add_counters(vec a, vec b) { return _mm512_add_epi32(a, b); }
INLINE vec lane_numbers(void)
{
    return _mm512_setr_epi32(0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0);
}
INLINE __m128i fold(vec x)
{
    __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}
INLINE vec lowest(__m128i x) { return _mm512_zextsi128_si512(x); }
INLINE vec clmul_low(vec a, vec b) { return _mm512_clmulepi64_epi128(a, b, 0x00); }
INLINE vec clmul_high(vec a, vec b) { return _mm512_clmulepi64_epi128(a, b, 0x11); }


/* Which bytes of vec i of a group are among its first n. */
INLINE __mmask64 part_mask(int i, size_t n)
{
    size_t start = 64 * (size_t)i, bytes = n < start ? 0 : n - start < 64 ? n - start : 64;
    return _bzhi_u64(~0ULL, (unsigned)bytes);
}

/* Bytes masked off are never touched; but an address wholly past the end could cost a fault that
 * the CPU has to suppress, so those are skipped. */
INLINE void load_part(vec x[4], const uint8_t *p, size_t n)
{
    for (int i = 0; i < 4; i++)
        x[i] = n > 64 * (size_t)i ? _mm512_maskz_loadu_epi8(part_mask(i, n), p + 64 * i)
                                  : _mm512_setzero_si512();
}

INLINE void store_part(uint8_t *p, const vec x[4], size_t n)
{
    for (int i = 0; i < 4; i++)
        if (n > 64 * (size_t)i)
            _mm512_mask_storeu_epi8(p + 64 * i, part_mask(i, n), x[i]);
}

INLINE void clear_after(vec x[4], size_t n)
{
    for (int i = 0; i < 4; i++)
        x[i] = _mm512_maskz_mov_epi8(part_mask(i, n), x[i]);
}

#include "aes_x86.h"

ZT_TARGET_END
#endif
