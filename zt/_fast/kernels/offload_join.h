/* Joins consecutive segments of a flow into one write to the TAP (GRO).
 *
 * Only what cutting again would restore byte by byte is joined: TCP segments with no flag but ACK
 * (PSH on the last) or UDP datagrams, in order, headers equal in everything but length, sequence
 * number, IPv4 identification (which must count up) and checksum, all of one size except a shorter
 * last one, every checksum right. Anything else goes through untouched, and what is no plain TCP or
 * UDP over IP ends all joins, so that nothing overtakes anything of its own flow.
 */
#ifndef ZT_OFFLOAD_JOIN_H
#define ZT_OFFLOAD_JOIN_H

#include "offload_cut.h"

#define JOIN_END 0xffffffffu

enum {
    JOIN_TCP = 1,
    JOIN_UDP = 2,
    JOIN_GROUPS = 16,       /* flows that are joined at a time */
    JOIN_SEGMENTS_MAX = 64, /* of one write: the kernel's own bound for UDP */
};

/* An Ethernet frame on its way to a TAP. `data` is borrowed from whoever filled the list, and the
 * VNET_HEADER bytes in front of it may be written. */
typedef struct {
    uint64_t nwid;
    uint8_t *data;
    uint32_t size;
    uint32_t headers; /* joined: bytes in front of the payload */
    uint32_t next;    /* the segment that follows in the same write, or JOIN_END */
    uint8_t follows;  /* part of an earlier frame's write */
} zt_tap_frame;

/* Sets headers, next and follows of every frame, puts a vnet header in front of each that does not
 * follow, and rewrites the headers of those that lead several. `kinds`: JOIN_TCP | JOIN_UDP. */
void zt_join(zt_tap_frame *frames, uint32_t count, unsigned kinds);

#endif
