/* Segmentation of what a TAP hands over (TSO, USO) and the checksums left to us.
 *
 * With offloads a read from the TAP brings one frame whose headers describe up to 64 KiB of one
 * flow, or an ordinary frame whose TCP or UDP checksum is not filled in. The cutter turns either
 * into frames fit for the wire, one at a time: it writes the patched headers of each where the
 * caller wants them and points at its payload inside the original, so that the payload is first
 * touched by the checksum and then by the cipher, and copied by neither.
 */
#ifndef ZT_OFFLOAD_CUT_H
#define ZT_OFFLOAD_CUT_H

#include <stddef.h>
#include <stdint.h>

enum {
    ETHERNET = 14,           /* header bytes */
    VNET_HEADER = 10,        /* struct virtio_net_hdr */
    CUT_HEADERS_MAX = 400,   /* Ethernet, two VLAN tags, IP with options or extensions, TCP */
};

/* struct virtio_net_hdr, host byte order as the kernel's TUN driver writes it. */
typedef struct {
    uint8_t flags;
    uint8_t gso_type;
    uint16_t header_size;
    uint16_t gso_size;       /* payload bytes per segment */
    uint16_t checksum_start; /* where summing starts, from the Ethernet header */
    uint16_t checksum_offset; /* where the result goes, from checksum_start */
} zt_vnet;

enum {
    VNET_NEEDS_CHECKSUM = 1,
    VNET_NONE = 0,
    VNET_TCP4 = 1,
    VNET_TCP6 = 4,
    VNET_UDP = 5,
    VNET_ECN = 0x80,
};

/* One frame or burst in the course of being cut. `frame` is borrowed until the last zt_cut_next. */
typedef struct {
    const uint8_t *frame;
    uint32_t size;
    uint32_t headers;  /* bytes in front of the payload, Ethernet included */
    uint32_t segment;  /* payload bytes of every segment but the last */
    uint32_t count;    /* frames it becomes */
    uint32_t at;       /* payload bytes already cut */
    uint16_t network;  /* offset of the IP header; 0: pass as it is */
    uint16_t transport; /* offset of the TCP or UDP header */
    uint8_t protocol;  /* 6 or 17 */
    uint32_t pseudo;   /* partial sum of the pseudo header without the length */
} zt_cut;

/* Starts on a frame of `size` bytes (Ethernet header first). A checksum that was left to us in an
 * ordinary frame is completed in place. Returns the number of frames to come, or 0 when the
 * description does not fit the frame. */
uint32_t zt_cut_begin(zt_cut *cut, const zt_vnet *vnet, uint8_t *frame, uint32_t size);

/* The next frame: writes cut->headers bytes to `headers` and returns the size of its payload, which
 * stays where it is, at *payload. */
uint32_t zt_cut_next(zt_cut *cut, uint8_t *headers, const uint8_t **payload);

/* Bytes of the next frame, Ethernet header included. */
static inline uint32_t zt_cut_size(const zt_cut *cut)
{
    uint32_t left = cut->size - cut->headers - cut->at;
    return cut->headers + (left < cut->segment ? left : cut->segment);
}

#endif
