/* Suite 3 as in aes_ni.c with the instructions' three-operand forms: for processors with AVX2 and
 * without VAES. Registers are short here, and moves between them are saved. */
#ifdef __x86_64__
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("avx2,aes,pclmul")

#define LEVEL avx2
#include "aes_x86.h"
#include "aes_single.h"

ZT_TARGET_END
#endif
