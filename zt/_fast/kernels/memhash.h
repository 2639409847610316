/* The memory-hard hash behind addresses (docs/protocol/01, 4.2). */
#ifndef ZT_MEMHASH_H
#define ZT_MEMHASH_H

#include <stdint.h>

enum { ZT_MEMHASH_TABLE = 2097152 };

/* table: ZT_MEMHASH_TABLE bytes of scratch memory, 8-byte aligned. */
void zt_memory_hard_hash(uint8_t digest[64], const uint8_t public_key[64], uint64_t *table);

#endif
