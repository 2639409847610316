/* The internet checksum (RFC 1071).
 *
 * A partial sum is the one's complement sum of big-endian 16-bit words as a number, folded to 16
 * bits: lengths, protocols and ports in host order can be added to it directly. */
#ifndef ZT_CHECKSUM_H
#define ZT_CHECKSUM_H

#include "bytes.h"
#include "dispatch.h"

static inline uint16_t zt_checksum_fold(uint64_t sum)
{
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint16_t)((sum >> 16) + sum);
}

/* sum plus n more bytes of any alignment. An odd last byte counts as the high half of a word, so
 * all parts of a message but the last must be of even length (or see zt_checksum_swap). */
static inline uint32_t zt_checksum_add(uint32_t sum, const void *data, size_t n)
{
    uint16_t part = zt_checksum_fold(zt_kernels_get()->checksum(data, n));
    return zt_checksum_fold((uint64_t)sum + ZT_BE16(part));
}

/* The same, and copies the bytes to dst, which lies apart from data. */
static inline uint32_t zt_checksum_copy(uint32_t sum, void *dst, const void *data, size_t n)
{
    uint16_t part = zt_checksum_fold(zt_kernels_get()->copy_checksum(dst, data, n));
    return zt_checksum_fold((uint64_t)sum + ZT_BE16(part));
}

/* The partial sum of a part that begins at an odd offset of its message. */
static inline uint32_t zt_checksum_swap(uint32_t sum)
{
    return __builtin_bswap16(zt_checksum_fold(sum));
}

/* The checksum field, in host order. UDP sends 0xffff where this gives 0 (RFC 768). */
static inline uint16_t zt_checksum_finish(uint32_t sum)
{
    return (uint16_t)~zt_checksum_fold(sum);
}

#endif
