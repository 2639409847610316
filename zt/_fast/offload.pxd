"""Cutting bursts and joining segments for the TAP: see kernels/offload_cut.h and offload_join.h."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "offload_cut.h" nogil:
    enum:
        ETHERNET
        VNET_HEADER
        VNET_NEEDS_CHECKSUM
        VNET_NONE
        VNET_TCP4
        VNET_TCP6
        VNET_UDP
        VNET_ECN

    ctypedef struct zt_vnet:
        uint8_t flags
        uint8_t gso_type
        uint16_t header_size
        uint16_t gso_size
        uint16_t checksum_start
        uint16_t checksum_offset

    ctypedef struct zt_cut:
        uint32_t headers
        uint32_t segment
        uint32_t count

    uint32_t zt_cut_begin(zt_cut *cut, const zt_vnet *vnet, uint8_t *frame, uint32_t size)
    uint32_t zt_cut_next(zt_cut *cut, uint8_t *headers, const uint8_t **payload)
    uint32_t zt_cut_size(const zt_cut *cut)


cdef enum:
    HEADERS_ROOM = 400  # CUT_HEADERS_MAX or more


cdef extern from "offload_join.h" nogil:
    enum:
        JOIN_END
        JOIN_TCP
        JOIN_UDP
        JOIN_SEGMENTS_MAX

    ctypedef struct zt_tap_frame:
        uint64_t nwid
        uint8_t *data
        uint32_t size
        uint32_t headers
        uint32_t next
        uint8_t follows

    void zt_join(zt_tap_frame *frames, uint32_t count, unsigned kinds)
