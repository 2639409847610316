"""The switch for C callers: batches in, results in a lane. switch.pyx draws the pipeline."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from zt._fast.cipher cimport iovec
from zt._fast.fragment cimport Ring, pthread_mutex_t
from zt._fast.offload cimport zt_cut, zt_tap_frame, zt_vnet
from zt._fast.tables cimport Core, Place, Tables


cdef extern from "switch_lane.h" nogil:
    enum:
        LANE_END
        LANE_RUN_SEGMENTS

    ctypedef struct Received "zt_received":
        Place place
        uint8_t *data
        uint32_t size
        uint32_t segment

    ctypedef struct zt_datagram:
        const uint8_t *head
        const uint8_t *tail
        uint32_t head_size
        uint32_t tail_size
        uint32_t next

    ctypedef struct zt_out:
        Place place
        int64_t path
        uint32_t segment
        uint32_t count
        uint32_t bytes
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
        uint64_t relayed
        uint64_t punts
        uint64_t drop_malformed
        uint64_t drop_self
        uint64_t drop_hops
        uint64_t drop_relay
        uint64_t drop_armor
        uint64_t drop_network
        uint64_t drop_mac
        uint64_t drop_size
        uint64_t drop_filter

    ctypedef struct zt_lane:
        uint8_t *arena
        uint32_t arena_room
        uint32_t arena_used
        zt_datagram *datagrams
        uint32_t datagram_room
        uint32_t datagram_count
        zt_out *outs
        uint32_t out_room
        uint32_t out_count
        zt_tap_frame *frames
        uint32_t frame_room
        uint32_t frame_count
        uint64_t filter_random
        zt_lane_counters counters

    int zt_lane_init(zt_lane *lane, uint32_t arena, uint32_t datagrams, uint32_t frames, const uint8_t *seed)
    void zt_lane_free(zt_lane *lane)
    void zt_lane_reset(zt_lane *lane)
    bint zt_lane_has_room(const zt_lane *lane)
    uint8_t *zt_lane_space(zt_lane *lane, uint32_t size)
    uint64_t zt_lane_id(zt_lane *lane)
    uint32_t zt_lane_fit(zt_lane *lane, int64_t path, uint32_t bytes, uint32_t count)
    void zt_lane_send(
        zt_lane *lane, const Place *place, int64_t path,
        const uint8_t *head, uint32_t head_size, const uint8_t *tail, uint32_t tail_size,
    )


cdef extern from "switch_queue.h" nogil:
    ctypedef struct zt_queue:
        uint64_t dropped
        int wake_fd
    void zt_queue_init(zt_queue *queue, size_t limit)
    void zt_queue_free(zt_queue *queue)
    bint zt_queue_put(
        zt_queue *queue, const void *head, size_t head_size, const iovec *pieces, int count, bint stranger
    )
    uint8_t *zt_queue_take(zt_queue *queue, size_t *used)


# What one read from a TAP brought: an Ethernet frame of up to 64 KiB, described by `vnet`.
# Borrowed likewise; checksums are completed in place.
cdef struct Burst:
    uint64_t nwid
    uint8_t *data
    uint32_t size
    zt_vnet vnet


# How far a batch has come: entry, and bytes of it that are done.
cdef struct Cursor:
    uint32_t entry
    uint32_t offset


cdef struct Introduction:
    uint64_t pair
    int64_t time


# What all lanes share.
cdef struct Plane:
    Core *core             # borrowed from the Tables
    Ring ring              # packets of which pieces are missing
    zt_queue punts
    pthread_mutex_t lock   # of the introductions
    Introduction *introductions  # owned; NULL until the first
    # Takes what a method of the switch results in; NULL: it piles up until taken.
    void (*flush)(void *pump, zt_lane *lane) noexcept nogil
    void *pump             # first argument of `flush`


# Both return True when the batch is done, False when the lane is full: send its results, reset it,
# and call again with the same cursor. The caller holds the tables' read lock during each call.
cdef bint switch_receive(
    Plane *plane, zt_lane *lane, const Received *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil
cdef bint switch_transmit(
    Plane *plane, zt_lane *lane, const Burst *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil
# The datagrams of a sealed packet of n bytes: a head of `first` bytes, and fragments of that size. The
# arena has room for their headers behind the packet.
cdef void send_pieces(
    zt_lane *lane, const Place *place, int64_t path, uint8_t *packet, uint32_t n, uint32_t first
) noexcept nogil
# To be called before a lane's datagrams are sent: sockets below 0 are the control plane's.
cdef void switch_hand_over(Plane *plane, zt_lane *lane) noexcept nogil
cdef list parse_punts(zt_queue *queue)
cdef dict lane_counters(const zt_lane_counters *c)


cdef class Switch:
    cdef Plane plane
    cdef readonly Tables tables  # keeps plane.core alive
    cdef zt_lane lane            # of the convenience methods; its arena is made on first use
    cdef bytes seed
    cdef list datagrams
    cdef list frames
    cdef zt_lane *own_lane(self) except NULL
    cdef int run(
        self, zt_lane *lane, const Received *received, const Burst *burst, Cursor *at, int64_t now
    ) except -1
    cdef int collect(self) except -1
