"""The cutter and the joiner by themselves, on bytes: for tests, benchmarks and tools.

The data plane calls the same C functions on its own buffers (switch.pyx, pump.pyx). A *burst* is
what a read from a TAP with vnet headers brings: a vnet header (struct virtio_net_hdr, 10 bytes,
host byte order) and an Ethernet frame of up to 64 KiB.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


def cut(bytes vnet not None, bytes frame not None):
    """The frames that a burst stands for, headers and checksums complete.

    ValueError: the vnet header does not fit the frame."""
    cdef zt_vnet header
    cdef zt_cut state
    cdef bytearray copy = bytearray(frame)
    cdef uint8_t[::1] view = copy
    cdef uint8_t[HEADERS_ROOM] headers
    cdef const uint8_t *payload
    cdef uint32_t size
    if len(vnet) != VNET_HEADER or len(frame) < ETHERNET:
        raise ValueError("a vnet header has 10 bytes, an Ethernet frame 14 or more")
    memcpy(&header, <const uint8_t *>vnet, VNET_HEADER)
    if not zt_cut_begin(&state, &header, &view[0], <uint32_t>len(frame)):
        raise ValueError("the vnet header does not fit the frame")
    result = []
    for _ in range(state.count):
        size = zt_cut_next(&state, headers, &payload)
        result.append(headers[: state.headers] + payload[:size])
    return result


def join(frames not None, *, bint tcp=True, bint udp=True):
    """What one batch of frames for a TAP becomes: a list of (vnet header, frame), in order."""
    cdef uint32_t count = <uint32_t>len(frames), i, at
    cdef zt_tap_frame *list_ = <zt_tap_frame *>calloc(count + 1, sizeof(zt_tap_frame))
    cdef uint8_t[::1] view
    if list_ == NULL:
        raise MemoryError
    try:
        copies = [bytearray(VNET_HEADER) + frame for frame in frames]
        for i in range(count):
            view = copies[i]
            list_[i].data = &view[0] + VNET_HEADER
            list_[i].size = <uint32_t>view.shape[0] - VNET_HEADER
        zt_join(list_, count, (JOIN_TCP if tcp else 0) | (JOIN_UDP if udp else 0))
        result = []
        for i in range(count):
            if list_[i].follows:
                continue
            vnet = (list_[i].data - VNET_HEADER)[:VNET_HEADER]
            frame = bytearray(list_[i].data[: list_[i].size])
            at = list_[i].next
            while at != JOIN_END:
                frame += list_[at].data[list_[at].headers : list_[at].size]
                at = list_[at].next
            result.append((vnet, bytes(frame)))
        return result
    finally:
        free(list_)
