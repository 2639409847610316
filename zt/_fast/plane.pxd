"""What the two directions of the switch share, for C callers: lanes, the punt queue, batches."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from zt._fast.cipher cimport iovec
from zt._fast.fragment cimport Ring, pthread_mutex_t
from zt._fast.offload cimport zt_tap_frame, zt_vnet
from zt._fast.tables cimport Core, Place


cdef extern from "switch_wire.h" nogil:
    enum:
        WIRE_DESTINATION
        WIRE_SOURCE
        WIRE_FLAGS
        WIRE_MAC
        WIRE_VERB
        WIRE_PAYLOAD
        WIRE_PACKET_MIN
        WIRE_PACKET_MAX
        FLAG_FRAGMENTED
        HOPS_MASK
        HOPS_LIMIT
        SUITE_TRUSTED
        VERB_MASK
        VERB_COMPRESSED
        VERB_HELLO
        VERB_MULTICAST_FRAME
        FLAG_LAYERED
        VERB_FRAME
        VERB_EXT_FRAME
        VERB_ACK
        VERB_QOS
        FRAGMENT_MARK
        FRAGMENT_TOTAL
        FRAGMENT_HOPS
        FRAGMENT_DATA
        FRAME_PAYLOAD
        EXT_FRAME_FLAGS
        EXT_FRAME_PAYLOAD
        EXT_COM
        EXT_ACKNOWLEDGE
    uint64_t load40(const uint8_t *p)
    uint64_t load48(const uint8_t *p)
    uint64_t load64_be(const void *p)
    void store40(uint8_t *p, uint64_t v)
    void store48(uint8_t *p, uint64_t v)
    void store64_be(void *p, uint64_t v)
    uint32_t wire_pieces(uint32_t packet, uint32_t piece)
    bint same_packet(const uint8_t *a, const uint8_t *b)


cdef extern from "switch_lane.h" nogil:
    enum:
        LANE_END
        LANE_HEADROOM

    ctypedef struct Received "zt_received":
        Place place
        uint8_t *data
        uint32_t size
        uint32_t segment

    ctypedef struct Burst "zt_burst":
        uint64_t nwid
        uint8_t *data
        uint32_t size
        zt_vnet vnet

    ctypedef struct zt_datagram:
        const uint8_t *head
        const uint8_t *tail
        uint32_t head_size
        uint32_t tail_size
        uint32_t next

    ctypedef struct zt_out:
        Place place
        uint32_t count
        uint32_t first

    ctypedef struct zt_lane_counters:
        uint64_t datagrams_in
        uint64_t bytes_in
        uint64_t datagrams_out
        uint64_t bytes_out
        uint64_t frames_in
        uint64_t frames_out
        uint64_t ext_frames_in
        uint64_t ext_frames_out
        uint64_t greeted
        uint64_t relayed
        uint64_t punts
        uint64_t drop_malformed
        uint64_t drop_self
        uint64_t drop_hops
        uint64_t drop_relay
        uint64_t drop_armor
        uint64_t drop_stranger
        uint64_t drop_repeat
        uint64_t drop_network
        uint64_t drop_source_mac
        uint64_t drop_bridge_in
        uint64_t drop_bridge_out
        uint64_t drop_size_in
        uint64_t drop_size_out
        uint64_t drop_filter_in
        uint64_t drop_filter_out

    ctypedef struct zt_lane:
        uint8_t *arena
        uint32_t arena_room
        uint32_t arena_used
        zt_datagram *datagrams
        uint32_t datagram_room
        uint32_t datagram_count
        zt_out *outs
        uint32_t out_count
        zt_tap_frame *frames
        uint32_t frame_count
        uint64_t filter_random
        zt_lane_counters counters

    void zt_lane_init(zt_lane *lane, const uint8_t *seed)
    void zt_lane_wipe(zt_lane *lane)
    int zt_lane_allocate(zt_lane *lane, uint32_t arena, uint32_t datagrams, uint32_t frames)
    void zt_lane_borrow(zt_lane *lane, const zt_lane *owner)
    void zt_lane_free(zt_lane *lane)
    void zt_lane_reset(zt_lane *lane)
    bint zt_lane_has_room(const zt_lane *lane)
    bint zt_lane_has_room_for(const zt_lane *lane, uint32_t bytes, uint32_t datagrams)
    uint8_t *zt_lane_space(zt_lane *lane, uint32_t size)
    uint64_t zt_lane_id(zt_lane *lane)
    uint32_t zt_lane_fit(zt_lane *lane, int64_t path, uint32_t packet)
    void zt_lane_send(
        zt_lane *lane, const Place *place, int64_t path,
        const uint8_t *head, uint32_t head_size, const uint8_t *tail, uint32_t tail_size,
    )


cdef extern from "switch_queue.h" nogil:
    enum:
        PUNT_HELLO
        PUNT_UNKNOWN
        PUNT_TRUSTED
        PUNT_PACKET
        PUNT_RELAY
        PUNT_FRAME
        PUNT_INTRODUCE
        PUNT_RECEIVED
        PUNT_SEND
        PUNT_DROPPED

    ctypedef struct zt_punt:
        Place place
        uint64_t address
        uint64_t nwid
        uint32_t size
        uint8_t kind
        uint8_t hops

    ctypedef struct zt_queue:
        int wake_fd

    void zt_queue_init(zt_queue *queue, size_t limit)
    uint64_t zt_queue_dropped(zt_queue *queue)
    void zt_queue_free(zt_queue *queue)
    bint zt_queue_put(zt_queue *queue, zt_punt *record, const iovec *pieces, int count)
    uint8_t *zt_queue_take(zt_queue *queue, size_t *used)


# How far a batch has come: entry, and bytes of it that are done.
cdef struct Cursor:
    uint32_t entry
    uint32_t offset


# A pair whose introduction the control plane was told of.
cdef struct Introduction:
    uint64_t pair
    int64_t time


# What all lanes of one node share.
cdef struct Plane:
    Core *core             # borrowed from the Tables
    Ring ring              # packets of which pieces are missing
    zt_queue punts
    int64_t drop_credit    # atomic: drops still to be told of (drops.pxd)
    pthread_mutex_t lock   # of the introductions and allowances
    Introduction *introductions  # owned; NULL until the first
    int64_t allowances[2]  # of strangers' HELLOs and of other packets of theirs: full again at, us
    # Takes what a method of the switch results in; NULL: it piles up until taken.
    void (*flush)(void *pump, zt_lane *lane) noexcept nogil
    void *pump             # first argument of `flush`
