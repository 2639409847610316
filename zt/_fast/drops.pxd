"""Drops told one by one, for whoever asks why (docs/architecture.md, DROPPED).

Counting costs nothing; a record costs a copy. So records are made only while there is credit, which
a listener gives and renews: without one a drop reads a single word more, and under a flood as many
records are made as the listener takes.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from zt._fast.cipher cimport iovec
from zt._fast.plane cimport PUNT_DROPPED, Plane, zt_punt, zt_queue_put
from zt._fast.tables cimport Place, shared_add, shared_load


cdef enum:
    DROP_DATA = 256      # leading bytes that are kept of a packet or frame
    DROP_OUTBOUND = 0x80


# In the order of DROP_REASONS (switch.pyx).
cdef enum Reason:
    MALFORMED
    SELF
    HOPS
    RELAY
    ARMOR
    REPEAT
    NETWORK
    SOURCE_MAC
    BRIDGE
    SIZE
    FILTER


cdef inline void tell_drop(
    Plane *plane, uint8_t reason, const Place *place, uint64_t address, uint64_t nwid,
    const void *head, uint32_t head_size, const void *data, uint32_t size,
) noexcept nogil:
    """A drop of what head and data are the bytes of. `reason`: a Reason, with DROP_OUTBOUND for a
    frame from a TAP; `place`: where the datagram came from, or NULL; `address`: the other node."""
    cdef zt_punt record
    cdef iovec[3] pieces
    cdef uint32_t whole = head_size + size
    if shared_load(&plane.drop_credit) <= 0:
        return
    shared_add(&plane.drop_credit, -1)
    memset(&record, 0, sizeof(zt_punt))
    record.kind = PUNT_DROPPED
    record.hops = reason
    record.address = address
    record.nwid = nwid
    if place != NULL:
        record.place = place[0]
    pieces[0].iov_base = &whole
    pieces[0].iov_len = sizeof(whole)
    pieces[1].iov_base = <void *>head
    pieces[1].iov_len = head_size
    pieces[2].iov_base = <void *>data
    pieces[2].iov_len = min(size, DROP_DATA - min(head_size, DROP_DATA))
    zt_queue_put(&plane.punts, &record, pieces, 3)
