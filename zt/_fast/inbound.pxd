from libc.stdint cimport int64_t, uint8_t, uint32_t

from zt._fast.plane cimport Cursor, Plane, Received, zt_lane
from zt._fast.tables cimport Peer, Place


# True when the batch is done, False when the lane is full: send its results, reset it, and call
# again with the same cursor. The caller holds the tables' read lock during each call.
cdef bint switch_receive(
    Plane *plane, zt_lane *lane, const Received *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil
# What became of a FRAME or EXT_FRAME.
cdef enum Fate:
    FRAME_PUNT = 0   # unchanged: the control plane has to look at it
    FRAME_NOTHING    # malformed, or of a network that we are not in: it proves nothing
    FRAME_MEMBER     # passed the gate of its network, whatever the rules made of it then


# An opened FRAME or EXT_FRAME of `n` bytes, in the lane's arena with LANE_HEADROOM before it, on its
# way to the TAP.
cdef Fate deliver(
    Plane *plane, zt_lane *lane, const Place *place, Peer *peer, uint8_t *packet, uint32_t n
) noexcept nogil
