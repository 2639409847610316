/* A lane: one thread's own working space in the switch, with the results of the current batch.
 *
 * The arena holds what this batch decrypted or encrypted. Datagrams and frames point into it, or
 * into the caller's receive buffers (relayed datagrams are sent from where they were received, the
 * payloads of frames read from a TAP are only read). All of that is valid until the caller, having
 * sent it, calls zt_lane_reset. A lane is used by one thread at a time and takes no lock.
 */
#ifndef ZT_SWITCH_LANE_H
#define ZT_SWITCH_LANE_H

#include "offload_join.h"
#include "switch_wire.h"
#include "table_place.h"

enum {
    LANE_RUN_SEGMENTS = 64,  /* datagrams of one sendmsg with UDP_SEGMENT: the kernel's bound */
    /* Payload of such a call: with IPv6, UDP and (tagged) Ethernet headers it stays below the device's
     * gso_max_size of 64 KiB. What exceeds that is cut in front of the device, as if not asked for. */
    LANE_RUN_BYTES = 65535 - 40 - 8 - 18,
    LANE_LOOK_BACK = 8,      /* runs searched for one that still grows */
    LANE_IDS = 32,
    LANE_HEADROOM = 64,      /* in front of a packet that becomes a frame */
};

/* What one receive call brought: `size` bytes of datagrams of `segment` bytes each, the last may be
 * shorter. Borrowed by the switch until the caller has sent what came of it; relayed datagrams get
 * their hop count changed in place. */
typedef struct {
    zt_place place;
    uint8_t *data;
    uint32_t size;
    uint32_t segment;
} zt_received;

/* What one read from a TAP brought: an Ethernet frame of up to 64 KiB, described by `vnet`.
 * Borrowed likewise; a checksum that was left to us is filled in. */
typedef struct {
    uint64_t nwid;
    uint8_t *data;
    uint32_t size;
    zt_vnet vnet;
} zt_burst;

/* One outgoing datagram in one or two stretches. */
typedef struct {
    const uint8_t *head;
    const uint8_t *tail;
    uint32_t head_size;
    uint32_t tail_size; /* 0: one stretch */
    uint32_t next;      /* the next datagram of the same run, or LANE_END */
} zt_datagram;

#define LANE_END 0xffffffffu

/* Datagrams to one place that leave with one call: all of `segment` bytes, the last may be shorter. */
typedef struct {
    zt_place place;
    int64_t path;      /* handle, to recognize the destination */
    uint32_t segment;
    uint32_t count;
    uint32_t bytes;
    uint32_t first, last;
    uint8_t open;      /* may grow */
} zt_out;

/* What one lane has done; one writer, read by anybody. */
typedef struct {
    uint64_t datagrams_in, bytes_in;    /* received, before any check */
    uint64_t datagrams_out, bytes_out;  /* to be sent, relayed ones included */
    uint64_t frames_in, frames_out;     /* from, to TAPs */
    uint64_t ext_frames_in, ext_frames_out; /* of these, as EXT_FRAME */
    uint64_t greeted;                   /* HELLOs answered here */
    uint64_t relayed;                   /* datagrams */
    uint64_t punts;
    uint64_t drop_malformed;            /* too short, or contents that contradict themselves */
    uint64_t drop_self;                 /* claims to be from us */
    uint64_t drop_hops;                 /* relayed too often */
    uint64_t drop_relay;                /* for others, and we do not relay (there) */
    uint64_t drop_armor;                /* not authentic */
    uint64_t drop_stranger;             /* from nobody we know, more than are looked at */
    uint64_t drop_repeat;               /* a frame's packet that came before */
    uint64_t drop_network;              /* of a network that we are not in */
    uint64_t drop_source_mac;           /* a member's frame from no MAC, or from ours */
    uint64_t drop_bridge_in;            /* for a MAC behind us, and we are no bridge */
    uint64_t drop_bridge_out;           /* from a MAC behind us, likewise */
    uint64_t drop_size_in;              /* larger than the network's MTU */
    uint64_t drop_size_out;             /* likewise, or than a packet */
    uint64_t drop_filter_in;            /* refused by the rules */
    uint64_t drop_filter_out;
} zt_lane_counters;

typedef struct {
    uint8_t *arena;     /* owned */
    uint32_t arena_room, arena_used;
    zt_datagram *datagrams; /* owned */
    uint32_t datagram_room, datagram_count;
    zt_out *outs;       /* owned; in order of sending */
    uint32_t out_room, out_count;
    zt_tap_frame *frames; /* owned; in order of writing */
    uint32_t frame_room, frame_count;
    uint64_t filter_random; /* state of the filter's generator, never 0 */
    /* Generator of packet IDs: a Salsa20/20 keystream under a secret key. */
    uint32_t id_state[16];
    uint64_t ids[LANE_IDS];
    uint32_t id_used;
    zt_lane_counters counters;
} zt_lane;

/* Starts a lane without working space. `seed`: 32 secret random bytes. */
void zt_lane_init(zt_lane *lane, const uint8_t seed[32]);
/* Forgets the secrets; zt_lane_free releases an own working space besides. */
void zt_lane_wipe(zt_lane *lane);
void zt_lane_free(zt_lane *lane);
/* Gives it working space of its own (-1: no memory), or another lane's. */
int zt_lane_allocate(zt_lane *lane, uint32_t arena, uint32_t datagrams, uint32_t frames);
void zt_lane_borrow(zt_lane *lane, const zt_lane *owner);

static inline void zt_lane_reset(zt_lane *lane)
{
    lane->arena_used = lane->datagram_count = lane->out_count = lane->frame_count = 0;
}

static inline bool zt_lane_has_room_for(const zt_lane *lane, uint32_t bytes, uint32_t datagrams)
{
    return lane->arena_used + bytes <= lane->arena_room && lane->frame_count < lane->frame_room &&
           lane->datagram_count + datagrams <= lane->datagram_room &&
           lane->out_count + datagrams <= lane->out_room;
}

/* Whether a packet of any size can still be handled: its bytes, pieces of two copies, one frame. */
static inline bool zt_lane_has_room(const zt_lane *lane)
{
    return zt_lane_has_room_for(lane, WIRE_PACKET_MAX + 1024, 16);
}

/* Space in the arena, aligned to a cache line. The caller knows that there is room. */
static inline uint8_t *zt_lane_space(zt_lane *lane, uint32_t size)
{
    uint8_t *space = lane->arena + lane->arena_used;
    lane->arena_used += (size + 63) & ~63u;
    return space;
}

/* A random packet ID. */
uint64_t zt_lane_new_ids(zt_lane *lane);
static inline uint64_t zt_lane_id(zt_lane *lane)
{
    if (lane->id_used < LANE_IDS)
        return lane->ids[lane->id_used++];
    return zt_lane_new_ids(lane);
}

/* The run that datagrams to this path would join, or NULL. */
static inline zt_out *zt_lane_out(zt_lane *lane, int64_t path)
{
    uint32_t i = lane->out_count, stop = i > LANE_LOOK_BACK ? i - LANE_LOOK_BACK : 0;
    while (i > stop)
        if (lane->outs[--i].path == path)
            return lane->outs[i].open ? &lane->outs[i] : NULL;
    return NULL;
}

/* Prepares for a packet to that path, whose pieces must not be divided among runs: the size of
 * piece that would continue the run to it, 0 if there is none or no room in it. */
static inline uint32_t zt_lane_fit(zt_lane *lane, int64_t path, uint32_t packet)
{
    zt_out *out = zt_lane_out(lane, path);
    if (!out)
        return 0;
    uint32_t count = wire_pieces(packet, out->segment);
    if (out->count + count > LANE_RUN_SEGMENTS ||
        out->bytes + packet + (count - 1) * FRAGMENT_DATA > LANE_RUN_BYTES) {
        out->open = 0;
        return 0;
    }
    return out->segment;
}

/* Queues one datagram. The caller knows that there is room. */
static inline void zt_lane_send(zt_lane *lane, const zt_place *place, int64_t path,
                                const uint8_t *head, uint32_t head_size,
                                const uint8_t *tail, uint32_t tail_size)
{
    uint32_t size = head_size + tail_size, index = lane->datagram_count++;
    zt_out *out = zt_lane_out(lane, path);
    lane->datagrams[index] = (zt_datagram){head, tail, head_size, tail_size, LANE_END};
    shared_count(&lane->counters.datagrams_out, 1);
    shared_count(&lane->counters.bytes_out, size);
    if (out && (size > out->segment || out->count == LANE_RUN_SEGMENTS || out->bytes + size > LANE_RUN_BYTES)) {
        out->open = 0;
        out = NULL;
    }
    if (out) {
        lane->datagrams[out->last].next = index;
        out->count++;
        out->bytes += size;
        out->open = size == out->segment;
    } else {
        out = &lane->outs[lane->out_count++];
        *out = (zt_out){.place = *place, .path = path, .segment = size, .count = 1, .bytes = size,
                        .first = index, .open = 1};
    }
    out->last = index;
}

#endif
