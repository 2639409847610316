/* Suite 3 with AES-NI and PCLMULQDQ: one block per instruction. */
#ifdef __x86_64__
#include <immintrin.h>

#include "bytes.h"
#include "kernels.h"
#include "reader.h"
#include "simd.h"

ZT_TARGET_BEGIN("sse4.1,aes,pclmul")

#define LEVEL aesni
#include "aes_x86.h"
#include "aes_single.h"

ZT_TARGET_END
#endif
