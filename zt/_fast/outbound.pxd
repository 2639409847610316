from libc.stdint cimport int64_t, uint8_t, uint32_t

from zt._fast.plane cimport Burst, Cursor, Plane, zt_lane
from zt._fast.tables cimport Place


# True when the batch is done, False when the lane is full: send its results, reset it, and call
# again with the same cursor. The caller holds the tables' read lock during each call.
cdef bint switch_transmit(
    Plane *plane, zt_lane *lane, const Burst *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil
# The datagrams of a sealed packet of n bytes: a head of `piece` bytes and fragments of that size. The
# arena has room for their headers behind the packet.
cdef void send_pieces(
    zt_lane *lane, const Place *place, int64_t path, uint8_t *packet, uint32_t n, uint32_t piece
) noexcept nogil
# To be called before a lane's datagrams are sent: sockets below 0 are the control plane's.
cdef void hand_over(Plane *plane, zt_lane *lane) noexcept nogil
