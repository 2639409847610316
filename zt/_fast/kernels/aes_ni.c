/* Suite 3 with AES-NI and PCLMULQDQ: one block per instruction. */
#ifdef __x86_64__
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("sse4.1,aes,pclmul")

#define LEVEL aesni
#define LANES 1
#define INLINE static inline __attribute__((always_inline))
#define REVERSAL _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

typedef __m128i vec;

INLINE vec load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
INLINE void store(void *p, vec x) { _mm_storeu_si128((__m128i *)p, x); }
INLINE vec xor_(vec a, vec b) { return _mm_xor_si128(a, b); }
INLINE vec broadcast(__m128i x) { return x; }
INLINE vec aes_round(vec x, vec key) { return _mm_aesenc_si128(x, key); }
INLINE vec aes_last(vec x, vec key) { return _mm_aesenclast_si128(x, key); }
INLINE vec reverse_blocks(vec x) { return _mm_shuffle_epi8(x, REVERSAL); }
INLINE vec low_halves(vec a, vec b) { return _mm_unpacklo_epi64(a, b); }
INLINE vec high_halves(vec a, vec b) { return _mm_unpackhi_epi64(a, b); }
INLINE vec add_counters(vec a, vec b) { return _mm_add_epi32(a, b); }
INLINE vec lane_numbers(void) { return _mm_setzero_si128(); }
INLINE __m128i fold(vec x) { return x; }
INLINE vec lowest(__m128i x) { return x; }
INLINE vec clmul_low(vec a, vec b) { return _mm_clmulepi64_si128(a, b, 0x00); }
INLINE vec clmul_high(vec a, vec b) { return _mm_clmulepi64_si128(a, b, 0x11); }

#include "aes_x86.h"

ZT_TARGET_END
#endif
