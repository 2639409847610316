/* Where a datagram came from or goes to: the physical end of a path. */
#ifndef ZT_TABLE_PLACE_H
#define ZT_TABLE_PLACE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "table_map.h"

#define NO_PATH (-1) /* no path handle */

typedef struct {
    int32_t socket;  /* the caller's number of the local socket */
    uint16_t port;
    uint8_t ip_size; /* 4 or 16 */
    uint8_t ip[16];  /* network order; only the first ip_size bytes count */
} zt_place;

static inline bool same_place(const zt_place *a, const zt_place *b)
{
    return a->socket == b->socket && a->port == b->port && a->ip_size == b->ip_size &&
           memcmp(a->ip, b->ip, a->ip_size) == 0;
}

static inline uint64_t place_hash(uint64_t seed, const zt_place *place)
{
    uint64_t words[2] = {0, 0};
    uint64_t h = (uint32_t)place->socket | (uint64_t)place->port << 32 | (uint64_t)place->ip_size << 48;
    memcpy(words, place->ip, place->ip_size);
    return map_mix(map_mix(map_mix(seed, h), words[0]), words[1]);
}

#endif
