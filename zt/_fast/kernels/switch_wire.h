/* Offsets and masks of packets (docs/protocol/02, section 2) and odd-sized big-endian fields. */
#ifndef ZT_SWITCH_WIRE_H
#define ZT_SWITCH_WIRE_H

#include <stdint.h>

#include "bytes.h"

enum {
    WIRE_DESTINATION = 8,
    WIRE_SOURCE = 13,
    WIRE_FLAGS = 18,
    WIRE_MAC = 19,
    WIRE_VERB = 27,
    WIRE_PAYLOAD = 28,
    WIRE_PACKET_MIN = 28,
    WIRE_PACKET_MAX = 10024,

    FLAG_LAYERED = 0x80,     /* with suite 0: a HELLO under a further layer; else without meaning */
    FLAG_FRAGMENTED = 0x40,
    HOPS_MASK = 0x07,
    HOPS_LIMIT = 3,          /* a packet that came this far is relayed no further */
    SUITE_TRUSTED = 2,

    VERB_MASK = 0x1f,
    VERB_COMPRESSED = 0x80,
    VERB_HELLO = 0x01,
    VERB_FRAME = 0x06,
    VERB_EXT_FRAME = 0x07,
    VERB_MULTICAST_FRAME = 0x0e,
    VERB_ACK = 0x12,
    VERB_QOS = 0x13,

    FRAGMENT_MARK = 0xff,    /* where a head has the first byte of its source */
    FRAGMENT_TOTAL = 14,     /* high half: pieces; low half: number of this one */
    FRAGMENT_HOPS = 15,
    FRAGMENT_DATA = 16,

    FRAME_PAYLOAD = 38,      /* of Ethernet, in a FRAME; the ethertype is in front */
    EXT_FRAME_FLAGS = 36,
    EXT_FRAME_PAYLOAD = 51,  /* destination MAC, source MAC and ethertype are in front */
    EXT_COM = 0x01,
    EXT_ACKNOWLEDGE = 0x10,
};

static inline uint64_t load40(const uint8_t *p)
{
    return (uint64_t)p[0] << 32 | load32_be(p + 1);
}

static inline uint64_t load48(const uint8_t *p)
{
    return (uint64_t)p[0] << 40 | (uint64_t)p[1] << 32 | load32_be(p + 2);
}

static inline void store40(uint8_t *p, uint64_t v)
{
    p[0] = (uint8_t)(v >> 32);
    store32_be(p + 1, (uint32_t)v);
}

static inline void store48(uint8_t *p, uint64_t v)
{
    p[0] = (uint8_t)(v >> 40);
    p[1] = (uint8_t)(v >> 32);
    store32_be(p + 2, (uint32_t)v);
}

/* Datagrams of at most `piece` bytes that a packet takes. */
static inline uint32_t wire_pieces(uint32_t packet, uint32_t piece)
{
    if (packet <= piece)
        return 1;
    return 1 + (packet - piece + piece - FRAGMENT_DATA - 1) / (piece - FRAGMENT_DATA);
}

/* Whether a fragment belongs to the packet of a head: same packet ID and destination. */
static inline bool same_packet(const uint8_t *a, const uint8_t *b)
{
    return load64(a) == load64(b) && load32(a + 8) == load32(b + 8) && a[12] == b[12];
}

#endif
