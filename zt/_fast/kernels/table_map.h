/* Open-addressing hash index of the tables: 64-bit key -> 32-bit slot number of a struct array.
 *
 * Linear probing with backward-shift deletion, so there are no tombstones and a lookup ends at the
 * first empty cell. Keys are mixed with a secret seed: a stranger who picks addresses cannot aim
 * at one cell. Equal keys may be added several times (the path index is keyed on a hash);
 * map_first/map_next walk them.
 *
 * Nothing here locks: writers hold the tables' write lock, readers its read lock.
 */
#ifndef ZT_TABLE_MAP_H
#define ZT_TABLE_MAP_H

#include <stdint.h>
#include <stdlib.h>

#define MAP_NONE 0xffffffffu

typedef struct {
    uint64_t key;
    uint32_t value; /* MAP_NONE: empty cell */
} zt_map_cell;

typedef struct {
    zt_map_cell *cells; /* owned; NULL until the first entry */
    uint32_t mask;      /* cells - 1 */
    uint32_t used;
    uint64_t seed;
} zt_map;

static inline uint64_t map_mix(uint64_t seed, uint64_t x)
{
    unsigned __int128 m = (unsigned __int128)(x ^ seed) * 0x9e3779b97f4a7c15ull;
    uint64_t h = (uint64_t)m ^ (uint64_t)(m >> 64);
    m = (unsigned __int128)(h ^ (seed >> 32 | seed << 32)) * 0xd6e8feb86659fd93ull;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* The cell after `at` (or the first one, at = MAP_NONE) that holds `key`; MAP_NONE when there is none. */
static inline uint32_t map_next(const zt_map *map, uint64_t key, uint32_t at)
{
    if (!map->cells)
        return MAP_NONE;
    uint32_t i = at == MAP_NONE ? (uint32_t)map_mix(map->seed, key) & map->mask : (at + 1) & map->mask;
    for (; map->cells[i].value != MAP_NONE; i = (i + 1) & map->mask)
        if (map->cells[i].key == key)
            return i;
    return MAP_NONE;
}

/* The value stored first under `key`, or MAP_NONE. */
static inline uint32_t map_get(const zt_map *map, uint64_t key)
{
    uint32_t cell = map_next(map, key, MAP_NONE);
    return cell == MAP_NONE ? MAP_NONE : map->cells[cell].value;
}

static inline void map_insert(zt_map *map, uint64_t key, uint32_t value)
{
    uint32_t i = (uint32_t)map_mix(map->seed, key) & map->mask;
    while (map->cells[i].value != MAP_NONE)
        i = (i + 1) & map->mask;
    map->cells[i].key = key;
    map->cells[i].value = value;
}

/* Adds an entry; -1 when there is no memory. Three quarters full is the most it gets. */
static inline int map_add(zt_map *map, uint64_t key, uint32_t value)
{
    uint32_t size = map->cells ? map->mask + 1 : 0;
    if ((uint64_t)(map->used + 1) * 4 > (uint64_t)size * 3) {
        zt_map grown = {.mask = size ? size * 2 - 1 : 3, .used = map->used, .seed = map->seed};
        grown.cells = (zt_map_cell *)malloc(((size_t)grown.mask + 1) * sizeof *grown.cells);
        if (!grown.cells)
            return -1;
        for (uint32_t i = 0; i <= grown.mask; i++)
            grown.cells[i].value = MAP_NONE;
        for (uint32_t i = 0; i < size; i++)
            if (map->cells[i].value != MAP_NONE)
                map_insert(&grown, map->cells[i].key, map->cells[i].value);
        free(map->cells);
        *map = grown;
    }
    map_insert(map, key, value);
    map->used++;
    return 0;
}

/* Removes the entry (key, value) if it is there. */
static inline void map_remove(zt_map *map, uint64_t key, uint32_t value)
{
    uint32_t hole = map_next(map, key, MAP_NONE);
    while (hole != MAP_NONE && map->cells[hole].value != value)
        hole = map_next(map, key, hole);
    if (hole == MAP_NONE)
        return;
    /* Move back every later entry of the cluster whose home lies at or before the hole. */
    for (uint32_t i = (hole + 1) & map->mask; map->cells[i].value != MAP_NONE; i = (i + 1) & map->mask) {
        uint32_t home = (uint32_t)map_mix(map->seed, map->cells[i].key) & map->mask;
        if (((i - home) & map->mask) >= ((i - hole) & map->mask)) {
            map->cells[hole] = map->cells[i];
            hole = i;
        }
    }
    map->cells[hole].value = MAP_NONE;
    map->used--;
}

static inline void map_free(zt_map *map)
{
    free(map->cells);
    map->cells = NULL;
    map->used = map->mask = 0;
}

/* ---- words that the data plane writes while it only holds the read lock ---- */

static inline int64_t shared_load(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void shared_store(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline void shared_add(int64_t *p, int64_t n) { __atomic_fetch_add(p, n, __ATOMIC_RELAXED); }
/* A counter with one writer and any number of readers. */
static inline void shared_count(uint64_t *p, uint64_t n)
{
    __atomic_store_n(p, __atomic_load_n(p, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}
/* Copies words that another thread counts in: each is whole, together they are no instant. */
static inline void shared_snapshot(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] = __atomic_load_n((const uint64_t *)from + i, __ATOMIC_RELAXED);
}
/* True for exactly one of the threads that want to move *p from `seen` to `v`. */
static inline int shared_claim(int64_t *p, int64_t seen, int64_t v)
{
    return __atomic_compare_exchange_n(p, &seen, v, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

#endif
