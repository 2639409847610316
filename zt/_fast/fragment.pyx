# cython: cdivision=True
"""Fragments (chapter 02, sections 2.3 to 2.6): where to cut, and reassembly.

A packet that exceeds the path's MTU is cut into pieces of equal datagram size, because the sender
is free to choose and equal datagrams leave and arrive many at a time (UDP_SEGMENT, UDP_GRO).

Reassembly keeps at most RING_SLOTS packets in progress, found by packet ID alone and overwritten
oldest first; together they hold at most RING_SLOTS * PACKET_MAX bytes. Pieces that arrive next to
each other in one batch never come here: the switch joins them where they lie.
"""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset


cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)


cdef extern from "switch_wire.h" nogil:
    uint32_t wire_pieces(uint32_t packet, uint32_t piece)


cdef void ring_init(Ring *ring) noexcept nogil:
    memset(ring, 0, sizeof(Ring))
    pthread_mutex_init(&ring.lock, NULL)


cdef void ring_free(Ring *ring) noexcept nogil:
    cdef uint32_t i
    for i in range(RING_SLOTS):
        release(ring, i)
    pthread_mutex_destroy(&ring.lock)


cdef void release(Ring *ring, uint32_t slot) noexcept nogil:
    if ring.pending[slot] != NULL:
        free(ring.pending[slot].data)
        free(ring.pending[slot])
        ring.pending[slot] = NULL
        ring.count -= 1


cdef uint32_t find(Ring *ring, uint64_t id) noexcept nogil:
    """The slot of that packet ID, a fresh one if it is new; RING_SLOTS when there is no memory."""
    cdef uint32_t i
    if ring.count:
        for i in range(RING_SLOTS):
            if ring.ids[i] == id and ring.pending[i] != NULL:
                return i
    i = ring.next
    release(ring, i)
    ring.pending[i] = <Pending *>calloc(1, sizeof(Pending))
    if ring.pending[i] == NULL:
        return RING_SLOTS
    ring.next = (i + 1) % RING_SLOTS
    ring.count += 1
    ring.ids[i] = id
    return i


cdef uint32_t ring_add(
    Ring *ring, uint64_t id, uint32_t number, uint32_t total,
    const uint8_t *data, uint32_t size, Place *place, uint8_t *out,
) noexcept nogil:
    cdef uint32_t slot, result = 0
    if number >= MAX_PIECES or (number > 0 and not 2 <= total <= MAX_PIECES):
        return 0
    pthread_mutex_lock(&ring.lock)
    slot = find(ring, id)
    if slot != RING_SLOTS:
        if not store(ring.pending[slot], number, total, data, size, place):
            release(ring, slot)
        elif complete(ring.pending[slot]):
            result = assemble(ring.pending[slot], out)
            place[0] = ring.pending[slot].place
            release(ring, slot)
    pthread_mutex_unlock(&ring.lock)
    return result


cdef bint store(
    Pending *packet, uint32_t number, uint32_t total, const uint8_t *data, uint32_t size, const Place *place
) noexcept nogil:
    """False when the packet cannot come to anything any more. The first copy of a piece wins."""
    cdef uint32_t room
    cdef void *moved
    if packet.present >> number & 1:
        return True
    if packet.used + size > PACKET_MAX:
        return False
    if packet.used + size > packet.room:
        room = min(PACKET_MAX, 2 * (packet.used + size))
        moved = realloc(packet.data, room)
        if moved == NULL:
            return False
        packet.data = <uint8_t *>moved
        packet.room = <uint16_t>room
    memcpy(packet.data + packet.used, data, size)
    packet.start[number] = packet.used
    packet.size[number] = <uint16_t>size
    packet.used += <uint16_t>size
    packet.present |= 1 << number
    if number:
        packet.total = <uint8_t>total
    else:
        packet.place = place[0]
    return True


cdef bint complete(const Pending *packet) noexcept nogil:
    """As many pieces as the latest fragment announced, and they are the right ones."""
    return packet.total != 0 and packet.present == (1 << packet.total) - 1


cdef uint32_t assemble(const Pending *packet, uint8_t *out) noexcept nogil:
    cdef uint32_t i, size = 0
    for i in range(packet.total):
        memcpy(out + size, packet.data + packet.start[i], packet.size[i])
        size += packet.size[i]
    return size


cdef uint32_t piece_size(uint32_t packet, uint32_t mtu, uint32_t wanted) noexcept nogil:
    cdef uint32_t n = wire_pieces(packet, mtu)
    if n == 1:
        return packet
    if n > MAX_PIECES:
        n = MAX_PIECES  # larger pieces arrive more often than an eighth one does (2.4)
    elif wanted and wanted <= mtu and wire_pieces(packet, wanted) == n:
        return wanted
    return (packet + FRAGMENT_HEADER * (n - 1) + n - 1) // n


def split(packet not None, int mtu):
    """The datagrams of an armored packet (bytes-like): itself if it fits `mtu`, else a head and
    fragments of equal size (the last may be shorter). The caller set the fragmented flag before
    armoring. Beyond seven pieces the datagrams grow past `mtu` (chapter 02, 2.4).

    ValueError: the packet is shorter than 28 or longer than 10024 bytes, or `mtu` below 64."""
    cdef const uint8_t[::1] data = packet
    cdef Py_ssize_t size = data.shape[0]
    cdef uint32_t first, total, number
    cdef bytes prefix
    if not PACKET_MIN <= size <= PACKET_MAX:
        raise ValueError("a packet has 28 to 10024 bytes")
    if mtu < 64:
        raise ValueError("a path MTU has at least 64 bytes")
    if size <= mtu:
        return [bytes(packet)]
    first = piece_size(<uint32_t>size, mtu, 0)
    total = wire_pieces(<uint32_t>size, first)
    whole = bytes(packet)
    prefix = whole[:13]
    result = [whole[:first]]
    at = <Py_ssize_t>first
    for number in range(1, total):
        result.append(prefix + bytes((0xFF, total << 4 | number, 0)) + whole[at : at + first - FRAGMENT_HEADER])
        at += first - FRAGMENT_HEADER
    return result


cdef class Reassembly:
    """The ring by itself, for tests and tools. Pieces are datagrams addressed to us."""

    cdef Ring ring

    def __cinit__(self):
        ring_init(&self.ring)

    def __dealloc__(self):
        ring_free(&self.ring)

    def add(self, bytes datagram not None):
        """The whole packet (flag 0x40 still set) if this piece completes it, else None.

        ValueError: neither a head with the fragmented flag nor a fragment."""
        cdef const uint8_t *p = <const uint8_t *>datagram
        cdef uint32_t n = <uint32_t>len(datagram), size
        cdef uint8_t[PACKET_MAX] out
        cdef Place place
        cdef uint64_t id
        memset(&place, 0, sizeof(Place))
        if n > FRAGMENT_HEADER and p[13] == 0xFF:
            memcpy(&id, p, 8)
            if p[14] & 15 == 0:
                return None
            size = ring_add(&self.ring, id, p[14] & 15, p[14] >> 4, p + FRAGMENT_HEADER,
                            n - FRAGMENT_HEADER, &place, out)
        elif n >= PACKET_MIN and p[18] & FRAGMENTED:
            memcpy(&id, p, 8)
            size = ring_add(&self.ring, id, 0, 0, p, n, &place, out)
        else:
            raise ValueError("not a piece of a packet")
        return out[:size] if size else None

    def __len__(self):
        return self.ring.count
