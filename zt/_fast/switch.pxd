"""The Switch object for other extensions. The work is in inbound.pyx and outbound.pyx."""

from libc.stdint cimport int64_t, uint32_t

from zt._fast.plane cimport Burst, Plane, Received, zt_lane, zt_lane_counters, zt_queue
from zt._fast.tables cimport Tables


cdef list parse_punts(zt_queue *queue)
cdef dict lane_counters(const zt_lane_counters *c)


cdef class Switch:
    cdef Plane plane
    cdef readonly Tables tables  # keeps plane.core alive
    cdef zt_lane lane            # of the methods; its arena is the shared scratch
    cdef list datagrams
    cdef list frames
    cdef int run(
        self, const Received *received, const Burst *bursts, uint32_t count, int64_t now, int times
    ) except -1
    cdef int collect(self) except -1
