#include "offload_cut.h"

#include "bytes.h"
#include "checksum.h"

enum { TCP = 6, UDP = 17, TCP_FLAGS = 13, TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };

static inline uint32_t load16_be(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline void store16_be(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }

/* Offset of the network header: behind the Ethernet header and up to two VLAN tags. */
static uint32_t network_offset(const uint8_t *frame, uint32_t size)
{
    uint32_t at = ETHERNET;
    for (int tags = 0; tags < 2 && at + 4 <= size; tags++, at += 4) {
        uint32_t type = load16_be(frame + at - 2);
        if (type != 0x8100 && type != 0x88a8)
            break;
    }
    return at;
}

/* An ordinary frame: fills in the checksum if that was left to us. */
static int complete_checksum(const zt_vnet *vnet, uint8_t *frame, uint32_t size)
{
    uint32_t start = vnet->checksum_start, field = start + vnet->checksum_offset;
    if (!(vnet->flags & VNET_NEEDS_CHECKSUM))
        return 1;
    if (start < ETHERNET || field + 2 > size)
        return 0;
    uint16_t sum = zt_checksum_finish(zt_checksum_add(0, frame + start, size - start));
    if (sum == 0 && vnet->checksum_offset == 6)
        sum = 0xffff; /* UDP: 0 would mean that there is no checksum */
    store16_be(frame + field, sum);
    return 1;
}

uint32_t zt_cut_begin(zt_cut *cut, const zt_vnet *vnet, uint8_t *frame, uint32_t size)
{
    uint8_t type = vnet->gso_type & ~VNET_ECN;
    uint32_t network, transport = vnet->checksum_start, headers, version;
    *cut = (zt_cut){.frame = frame, .size = size, .headers = ETHERNET, .count = 1};
    if (size < ETHERNET)
        return 0;
    cut->segment = size - ETHERNET;
    if (type == VNET_NONE)
        return (uint32_t)complete_checksum(vnet, frame, size);

    network = network_offset(frame, size);
    if (!(vnet->flags & VNET_NEEDS_CHECKSUM) || !vnet->gso_size || transport < network + 20u ||
        transport + (type == VNET_UDP ? 8u : 20u) > size)
        return 0;
    version = frame[network] >> 4;
    cut->protocol = type == VNET_UDP ? UDP : TCP;
    if (type == VNET_UDP)
        headers = transport + 8;
    else
        headers = transport + (frame[transport + 12] >> 4) * 4u;
    if ((type == VNET_TCP4 && version != 4) || (type == VNET_TCP6 && version != 6) ||
        (type != VNET_TCP4 && type != VNET_TCP6 && type != VNET_UDP))
        return 0;
    if (version == 4) {
        if (transport != network + (frame[network] & 15) * 4u)
            return 0;
        cut->pseudo = zt_checksum_add(cut->protocol, frame + network + 12, 8);
    } else if (version == 6 && transport >= network + 40u) {
        cut->pseudo = zt_checksum_add(cut->protocol, frame + network + 8, 32);
    } else {
        return 0;
    }
    if (headers < transport + (cut->protocol == TCP ? 20u : 8u) || headers >= size ||
        headers > CUT_HEADERS_MAX)
        return 0;
    if (transport > network + 40u && version == 6) {
        /* A routing header may have another final destination: take the kernel's own sum, which
         * includes the length of the whole burst. */
        uint32_t given = load16_be(frame + transport + vnet->checksum_offset);
        cut->pseudo = zt_checksum_fold((uint64_t)given + 0xffff - zt_checksum_fold(size - transport));
    }
    cut->network = (uint16_t)network;
    cut->transport = (uint16_t)transport;
    cut->headers = headers;
    cut->segment = vnet->gso_size;
    cut->count = (size - headers + vnet->gso_size - 1) / vnet->gso_size;
    return cut->count;
}

uint32_t zt_cut_next(zt_cut *cut, uint8_t *headers, const uint8_t **payload)
{
    uint32_t left = cut->size - cut->headers - cut->at;
    uint32_t size = left < cut->segment ? left : cut->segment;
    uint8_t *ip = headers + cut->network, *transport = headers + cut->transport;
    uint32_t segment = cut->headers - cut->transport + size; /* transport header and payload */
    uint32_t index, sum;

    *payload = cut->frame + cut->headers + cut->at;
    memcpy(headers, cut->frame, cut->headers);
    if (cut->network) {
        index = cut->at / cut->segment;
        if (ip[0] >> 4 == 4) {
            store16_be(ip + 2, cut->transport - cut->network + segment);
            store16_be(ip + 4, load16_be(ip + 4) + index);
            store16_be(ip + 10, 0);
            store16_be(ip + 10, zt_checksum_finish(zt_checksum_add(0, ip, (ip[0] & 15) * 4u)));
        } else {
            store16_be(ip + 4, cut->transport - cut->network - 40 + segment);
        }
        if (cut->protocol == TCP) {
            store32_be(transport + 4, load32_be(transport + 4) + cut->at);
            if (left > cut->segment)
                transport[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
            if (index)
                transport[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
            store16_be(transport + 16, 0);
        } else {
            store16_be(transport + 4, segment);
            store16_be(transport + 6, 0);
        }
        sum = zt_checksum_add(cut->pseudo + segment, transport, cut->headers - cut->transport);
        sum = zt_checksum_finish(zt_checksum_add(sum, *payload, size));
        if (cut->protocol == UDP && sum == 0)
            sum = 0xffff;
        store16_be(transport + (cut->protocol == TCP ? 16 : 6), sum);
    }
    cut->at += size;
    return size;
}
