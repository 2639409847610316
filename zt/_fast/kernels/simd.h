/* Instruction sets per file, without compiler flags. A kernel file says
 *
 *     #include "simd.h"
 *     ZT_TARGET_BEGIN("avx2")
 *     ...
 *     ZT_TARGET_END
 *
 * around its functions, after all its #includes; nothing outside may call them before the CPU was
 * asked. */
#ifndef ZT_SIMD_H
#define ZT_SIMD_H

#define ZT_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define ZT_TARGET_BEGIN(sets) \
    ZT_PRAGMA(clang attribute push(__attribute__((target(sets))), apply_to = function))
#define ZT_TARGET_END ZT_PRAGMA(clang attribute pop)
#else
#define ZT_TARGET_BEGIN(sets) ZT_PRAGMA(GCC push_options) ZT_PRAGMA(GCC target(sets))
#define ZT_TARGET_END ZT_PRAGMA(GCC pop_options)
#endif

/* What GCC and clang call the ARMv8 cryptographic extension. */
#ifdef __clang__
#define ZT_ARM_CRYPTO "aes,neon"
#else
#define ZT_ARM_CRYPTO "+crypto"
#endif

/* Elements of two vectors by number, those of b after those of a. */
#ifdef __clang__
#define ZT_SHUFFLE(type, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define ZT_SHUFFLE(type, a, b, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

#define ZT_PASTE_(a, b) a##b
#define ZT_PASTE(a, b) ZT_PASTE_(a, b)

#endif
