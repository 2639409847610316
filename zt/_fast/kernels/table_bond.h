/* How packets to a bonded peer are spread over its paths (chapter 03, 9.5), and which packets are
 * remembered so that the two ends can measure a path (9.4).
 *
 * The control plane decides which paths are used and writes that under the tables' write lock. The
 * data plane picks: what it writes (turn, flows, samples) is atomic, because it only holds the read
 * lock. A path has a slot of the bond for as long as it belongs to it, and flows remember slots.
 */
#ifndef ZT_TABLE_BOND_H
#define ZT_TABLE_BOND_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "table_map.h"

enum {
    BOND_SLOTS = 64,
    BOND_FLOWS = 1 << 16,
    BOND_SHARES = 1 << 16,     /* what the shares of all members add up to */
    BOND_SAMPLES = 192,        /* per path and direction between two looks of the control plane */
    BOND_NO_SLOT = -1,
};

enum bond_policy {
    BOND_ACTIVE_BACKUP = 1,    /* the route alone; the other paths are only measured */
    BOND_BROADCAST = 2,
    BOND_ROUND_ROBIN = 3,
    BOND_XOR = 4,
    BOND_AWARE = 5,
};

typedef struct {
    uint64_t id;               /* packet ID as a number */
    int64_t time;              /* ms */
} zt_sample;

typedef struct {
    int64_t count;             /* atomic */
    zt_sample entries[BOND_SAMPLES];
} zt_samples;

typedef struct {
    uint8_t policy;            /* bond_policy */
    uint8_t slots;             /* in use or used before */
    uint8_t count;             /* members */
    uint8_t member[BOND_SLOTS];    /* the slots that packets go to, in order */
    uint32_t upto[BOND_SLOTS];     /* share of new flows up to and including that member */
    uint64_t members;          /* the same slots as bits */
    int64_t path[BOND_SLOTS];  /* handle by slot, or NO_PATH */
    uint32_t packets;          /* in a row on one path, balance-rr */
    int64_t turn;              /* atomic: packets sent so far, balance-rr */
    uint32_t *flows;           /* owned; by flow: seconds << 8 | slot + 1, 0 = none. NULL: no flows */
    zt_samples *sent;          /* owned; by slot */
    zt_samples *received;      /* owned; by slot */
} zt_bond;

/* Only odd packet IDs are looked at, as the original does. The fuller the buffer, the fewer of them,
 * picked by their low bits, so that both ends of a busy path remember the same packets. */
static inline void samples_note(zt_samples *samples, uint64_t id, int64_t now)
{
    static const uint32_t masks[] = {0x1, 0x3f, 0xfff};
    int64_t n = shared_load(&samples->count);
    if (n >= BOND_SAMPLES || (id & masks[n * 3 / BOND_SAMPLES]) != 1 || !shared_claim(&samples->count, n, n + 1))
        return;
    samples->entries[n] = (zt_sample){id, now};
}

static inline int bond_slot(const zt_bond *bond, int64_t path)
{
    for (int i = 0; i < bond->slots; i++)
        if (bond->path[i] == path)
            return i;
    return BOND_NO_SLOT;
}

/* ---- flows ---- */

static inline uint16_t bond_word(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

/* The flow of a frame whose payload (behind the Ethernet header) is `p`: the same in both directions.
 * Ports XOR protocol for TCP, UDP, SCTP and UDP-Lite. What has none, fragments among it, is a flow by
 * its pair of IP addresses, so that its order is kept too; other frames are one by their type. */
static inline uint16_t bond_flow(const uint8_t *p, uint32_t n, uint16_t ethertype)
{
    uint32_t at, address, size;
    uint8_t protocol;
    bool whole = true;
    if (ethertype == 0x0800 && n >= 20) {
        at = (p[0] & 15) * 4u;
        address = 12, size = 8;
        protocol = p[9];
        whole = (bond_word(p + 6) & 0x3fff) == 0;
    } else if (ethertype == 0x86dd && n >= 40) {
        at = 40;
        address = 8, size = 32;
        protocol = p[6];
        for (int i = 0; i < 8 && at + 8 <= n; i++) {
            if (protocol == 44) {
                whole = (bond_word(p + at + 2) & 0xfff9) == 0;
                protocol = p[at];
                at += 8;
            } else if (protocol == 0 || protocol == 43 || protocol == 60 || protocol == 51) {
                uint32_t length = protocol == 51 ? (p[at + 1] + 2u) * 4 : (p[at + 1] + 1u) * 8;
                protocol = p[at];
                at += length;
            } else {
                break;
            }
            if (!whole)
                break;
        }
    } else {
        return ethertype;
    }
    if (whole && at + 4 <= n && (protocol == 6 || protocol == 17 || protocol == 132 || protocol == 136))
        return bond_word(p + at) ^ bond_word(p + at + 2) ^ protocol;
    uint16_t flow = protocol;
    for (uint32_t i = 0; i < size; i += 2)
        flow ^= bond_word(p + address + i);
    return flow;
}

static inline bool bond_is_member(const zt_bond *bond, int slot)
{
    return slot >= 0 && (bond->members >> slot & 1);
}

static inline void bond_assign(zt_bond *bond, uint16_t flow, int slot, int64_t now)
{
    uint32_t entry = (uint32_t)(now / 1000) << 8 | (uint32_t)(slot + 1);
    if (__atomic_load_n(&bond->flows[flow], __ATOMIC_RELAXED) != entry)
        __atomic_store_n(&bond->flows[flow], entry, __ATOMIC_RELAXED);
}

/* The slot that a flow has; BOND_NO_SLOT if it has none, or one that is no member any more. */
static inline int bond_slot_of(const zt_bond *bond, uint16_t flow)
{
    int slot = (int)(__atomic_load_n(&bond->flows[flow], __ATOMIC_RELAXED) & 0xff) - 1;
    return bond_is_member(bond, slot) ? slot : BOND_NO_SLOT;
}

/* A flow first seen inbound answers where it came from. */
static inline void bond_heard(zt_bond *bond, uint16_t flow, int64_t path, int64_t now)
{
    int slot = bond_slot(bond, path);
    if (bond_is_member(bond, slot) && bond_slot_of(bond, flow) == BOND_NO_SLOT)
        bond_assign(bond, flow, slot, now);
}

/* A number for the flow of which no bit is left to chance: systems give out source ports of one
 * parity, so that the flow itself modulo an even number of paths would be one path. */
static inline uint32_t bond_mix(uint16_t flow)
{
    return flow * 0x9e3779b1u >> 16;
}

/* The slot for `packets` packets of one flow; BOND_NO_SLOT: they take the route. `random` decides
 * about new flows of balance-aware. */
static inline int bond_pick(zt_bond *bond, uint16_t flow, uint32_t packets, uint64_t random, int64_t now)
{
    int slot;
    if (bond->count == 0)
        return BOND_NO_SLOT;
    if (bond->policy == BOND_ROUND_ROBIN) {
        uint64_t turn = (uint64_t)__atomic_fetch_add(&bond->turn, packets, __ATOMIC_RELAXED);
        return bond->member[turn / bond->packets % bond->count];
    }
    if (!bond->flows)
        return BOND_NO_SLOT;
    slot = bond_slot_of(bond, flow);
    if (slot == BOND_NO_SLOT && bond->policy == BOND_XOR) {
        slot = bond->member[bond_mix(flow) % bond->count];
    } else if (slot == BOND_NO_SLOT) {
        int i = 0;
        while (i < bond->count - 1 && bond->upto[i] <= random % BOND_SHARES)
            i++;
        slot = bond->member[i];
    }
    bond_assign(bond, flow, slot, now);
    return slot;
}

/* For the control plane. Forgets flows that were idle for `idle` ms, counts the others by slot, and
 * takes one flow away from slot `away`: its next packet chooses anew. */
static inline void bond_sweep(zt_bond *bond, int64_t now, int64_t idle, int away, uint32_t counts[BOND_SLOTS])
{
    uint32_t seconds = (uint32_t)(now / 1000);
    for (uint32_t flow = 0; bond->flows && flow < BOND_FLOWS; flow++) {
        uint32_t entry = __atomic_load_n(&bond->flows[flow], __ATOMIC_RELAXED);
        int slot = (int)(entry & 0xff) - 1;
        if (slot < 0)
            continue;
        bool expired = ((seconds - (entry >> 8)) & 0xffffff) * (int64_t)1000 >= idle;
        if (expired || slot == away) {
            if (__atomic_compare_exchange_n(&bond->flows[flow], &entry, 0, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
                !expired)
                away = BOND_NO_SLOT;
        } else {
            counts[slot]++;
        }
    }
}

static inline void bond_free(zt_bond *bond)
{
    if (bond) {
        free(bond->flows);
        free(bond->sent);
        free(bond->received);
        free(bond);
    }
}

static inline size_t bond_bytes(const zt_bond *bond)
{
    if (!bond)
        return 0;
    return sizeof *bond + 2 * bond->slots * sizeof(zt_samples) + (bond->flows ? BOND_FLOWS * sizeof *bond->flows : 0);
}

#endif
