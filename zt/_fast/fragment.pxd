"""Fragments (chapter 02, sections 2.3 to 2.6): where to cut, and reassembly."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from zt._fast.tables cimport Place


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass


cdef enum:
    PACKET_MIN = 28
    PACKET_MAX = 10024
    FRAGMENT_HEADER = 16
    MAX_PIECES = 7
    FRAGMENTED = 0x40  # in the flags byte of a head
    RING_SLOTS = 32


# One packet of which some pieces have arrived.
cdef struct Pending:
    Place place            # where its head came from
    uint8_t total          # 0: not yet known
    uint8_t present        # bit set of pieces
    uint16_t[MAX_PIECES] start  # of each piece in `data`
    uint16_t[MAX_PIECES] size
    uint16_t used
    uint16_t room
    uint8_t *data          # owned: the pieces in order of arrival


# The packets in progress; a new one takes the place of the oldest.
cdef struct Ring:
    pthread_mutex_t lock   # held while a piece is stored or a packet copied out
    uint32_t next          # slot that a new packet takes
    uint32_t count         # slots in use
    uint64_t[RING_SLOTS] ids
    (Pending *)[RING_SLOTS] pending  # owned; NULL: free


cdef void ring_init(Ring *ring) noexcept nogil
cdef void ring_free(Ring *ring) noexcept nogil
# Stores piece `number` (0: head, whole datagram; else the data behind the fragment header) of a
# packet. When that completes it, copies the packet to `out` (PACKET_MAX bytes), the head's origin
# to `place`, and returns its size; else 0. The data is only borrowed for the call.
cdef uint32_t ring_add(
    Ring *ring, uint64_t id, uint32_t number, uint32_t total,
    const uint8_t *data, uint32_t size, Place *place, uint8_t *out,
) noexcept nogil
# Size of all pieces of a packet but the last, which may be shorter. `wanted` (0: none) is the
# preferred size and used when it takes no more pieces than the MTU does.
cdef uint32_t piece_size(uint32_t packet, uint32_t mtu, uint32_t wanted) noexcept nogil
