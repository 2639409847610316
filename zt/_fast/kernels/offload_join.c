#include "offload_join.h"

#include <stdbool.h>

#include "bytes.h"
#include "checksum.h"

enum { TCP = 6, UDP = 17, TCP_PSH = 0x08, TCP_ACK = 0x10, IP_MAX = 65535, IP_DONT_FRAGMENT = 0x40 };

static inline uint32_t load16_be(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline void store16_be(uint8_t *p, uint32_t v) { p[0] = (uint8_t)(v >> 8); p[1] = (uint8_t)v; }

/* What a frame is made of, as far as joining cares. */
typedef struct {
    uint32_t transport; /* offset of the TCP or UDP header */
    uint32_t headers;   /* offset of the payload */
    uint32_t payload;   /* bytes */
    uint8_t version;    /* 4 or 6 */
    uint8_t protocol;
    bool plain;         /* may be joined with others */
} Parts;

/* A write in the making. */
typedef struct {
    uint32_t first, last; /* indices of frames */
    uint32_t segments;
    uint32_t total;       /* payload bytes */
    Parts parts;          /* of the first frame */
    bool open;            /* may grow */
    bool checked;         /* the first frame's checksums are right */
} Group;

/* False: not TCP or UDP over IP in its plain form. */
static bool parse(const uint8_t *p, uint32_t size, Parts *parts)
{
    const uint32_t ip = ETHERNET;
    uint32_t type;
    if (size < ip + 28)
        return false;
    type = load16_be(p + 12);
    if (type == 0x0800) {
        if (p[ip] != 0x45 || load16_be(p + ip + 2) != size - ip || (load16_be(p + ip + 6) & 0x3fff))
            return false;
        parts->version = 4;
        parts->protocol = p[ip + 9];
        parts->transport = ip + 20;
    } else if (type == 0x86dd) {
        if (size < ip + 48 || p[ip] >> 4 != 6 || load16_be(p + ip + 4) != size - ip - 40)
            return false;
        parts->version = 6;
        parts->protocol = p[ip + 6];
        parts->transport = ip + 40;
    } else {
        return false;
    }
    p += parts->transport;
    if (parts->protocol == TCP && size >= parts->transport + 20) {
        parts->headers = parts->transport + (p[12] >> 4) * 4u;
        if (parts->headers < parts->transport + 20 || parts->headers > size)
            return false;
        parts->plain = (p[12] & 15) == 0 && (p[13] & ~TCP_PSH) == TCP_ACK && load16_be(p + 18) == 0;
    } else if (parts->protocol == UDP) {
        parts->headers = parts->transport + 8;
        if (load16_be(p + 4) != size - parts->transport)
            return false;
        parts->plain = load16_be(p + 6) != 0;
    } else {
        return false;
    }
    parts->payload = size - parts->headers;
    if (parts->payload == 0)
        parts->plain = false;
    return true;
}

/* Sum of the pseudo header with a transport length of `length`. */
static uint32_t pseudo_sum(const uint8_t *p, const Parts *parts, uint32_t length)
{
    if (parts->version == 4)
        return zt_checksum_add(parts->protocol + length, p + ETHERNET + 12, 8);
    return zt_checksum_add(parts->protocol + length, p + ETHERNET + 8, 32);
}

static bool checksums_right(const uint8_t *p, uint32_t size, const Parts *parts)
{
    uint32_t length = size - parts->transport;
    if (parts->version == 4 && zt_checksum_finish(zt_checksum_add(0, p + ETHERNET, 20)) != 0)
        return false;
    return zt_checksum_finish(zt_checksum_add(pseudo_sum(p, parts, length), p + parts->transport, length)) == 0;
}

static bool same_flow(const uint8_t *a, const Parts *x, const uint8_t *b, const Parts *y)
{
    if (x->version != y->version || x->protocol != y->protocol)
        return false;
    if (load32(a + x->transport) != load32(b + y->transport)) /* both ports */
        return false;
    if (x->version == 4)
        return load64(a + ETHERNET + 12) == load64(b + ETHERNET + 12);
    return memcmp(a + ETHERNET + 8, b + ETHERNET + 8, 32) == 0;
}

/* Whether frame b continues the write: headers equal, counters one step on. */
static bool continues(const zt_tap_frame *frames, const Group *group, const uint8_t *b, const Parts *parts)
{
    const uint8_t *a = frames[group->first].data, *last = frames[group->last].data;
    const uint32_t ip = ETHERNET, t = parts->transport;
    if (!parts->plain || parts->headers != group->parts.headers || memcmp(a, b, ETHERNET) != 0 ||
        frames[group->last].size != frames[group->first].size || /* a shorter one was the last */
        parts->payload > group->parts.payload || group->segments == JOIN_SEGMENTS_MAX ||
        parts->headers - ip + group->total + parts->payload > IP_MAX)
        return false;
    if (parts->version == 4) {
        if (a[ip + 1] != b[ip + 1] || load16(a + ip + 6) != load16(b + ip + 6) || a[ip + 8] != b[ip + 8])
            return false;
        /* Sockets that are not connected leave the identification of datagrams that must not be
         * fragmented at 0. It means nothing there (RFC 6864), so those are joined as well, as the
         * kernel's own GRO does. */
        uint32_t step = (load16_be(b + ip + 4) - load16_be(last + ip + 4)) & 0xffff;
        bool constant = step == 0 && parts->protocol == UDP && (a[ip + 6] & IP_DONT_FRAGMENT);
        if (step != 1 && !constant)
            return false;
    } else if (load32(a + ip) != load32(b + ip) || a[ip + 7] != b[ip + 7]) {
        return false;
    }
    if (parts->protocol == UDP)
        return true;
    return load32_be(b + t + 4) == load32_be(a + t + 4) + group->total && /* sequence */
           load32(b + t + 8) == load32(a + t + 8) &&                      /* acknowledgement */
           load16(b + t + 14) == load16(a + t + 14) &&                    /* window */
           !(last[t + 13] & TCP_PSH) &&
           memcmp(a + t + 20, b + t + 20, parts->headers - t - 20) == 0; /* options */
}

/* The first frame's headers and vnet header come to describe the whole group. */
static void finish(zt_tap_frame *frames, const Group *group)
{
    zt_tap_frame *first = &frames[group->first];
    const Parts *parts = &group->parts;
    uint8_t *p = first->data, *t = p + parts->transport;
    uint32_t length = parts->headers - parts->transport + group->total;
    zt_vnet vnet = {0};
    if (group->segments > 1) {
        vnet.flags = VNET_NEEDS_CHECKSUM;
        vnet.gso_type = parts->protocol == UDP ? VNET_UDP : parts->version == 4 ? VNET_TCP4 : VNET_TCP6;
        vnet.header_size = (uint16_t)parts->headers;
        vnet.gso_size = (uint16_t)parts->payload;
        vnet.checksum_start = (uint16_t)parts->transport;
        vnet.checksum_offset = parts->protocol == UDP ? 6 : 16;
        if (parts->version == 4) {
            store16_be(p + ETHERNET + 2, parts->transport - ETHERNET + length);
            store16_be(p + ETHERNET + 10, 0);
            store16_be(p + ETHERNET + 10, zt_checksum_finish(zt_checksum_add(0, p + ETHERNET, 20)));
        } else {
            store16_be(p + ETHERNET + 4, length);
        }
        if (parts->protocol == UDP)
            store16_be(t + 4, length);
        else
            t[13] |= frames[group->last].data[parts->transport + 13] & TCP_PSH;
        store16_be(t + vnet.checksum_offset, zt_checksum_fold(pseudo_sum(p, parts, length)));
    }
    memcpy(p - VNET_HEADER, &vnet, VNET_HEADER);
}

void zt_join(zt_tap_frame *frames, uint32_t count, unsigned kinds)
{
    Group groups[JOIN_GROUPS];
    uint32_t used = 0, oldest = 0;
    for (uint32_t i = 0; i < count; i++) {
        zt_tap_frame *frame = &frames[i];
        Parts parts;
        uint32_t g;
        frame->next = JOIN_END;
        frame->follows = 0;
        if (!kinds || !parse(frame->data, frame->size, &parts)) {
            for (g = 0; g < used; g++)
                groups[g].open = false;
            memset(frame->data - VNET_HEADER, 0, VNET_HEADER);
            continue;
        }
        if (!(kinds & (parts.protocol == TCP ? JOIN_TCP : JOIN_UDP)))
            parts.plain = false;
        frame->headers = parts.headers;
        for (g = 0; g < used; g++) {
            Group *group = &groups[g];
            const zt_tap_frame *first = &frames[group->first];
            if (!group->open || first->nwid != frame->nwid ||
                !same_flow(first->data, &group->parts, frame->data, &parts))
                continue;
            if (continues(frames, group, frame->data, &parts) &&
                (group->checked || checksums_right(first->data, first->size, &group->parts)) &&
                checksums_right(frame->data, frame->size, &parts)) {
                group->checked = true;
                frames[group->last].next = i;
                frame->follows = 1;
                group->last = i;
                group->total += parts.payload;
                group->segments++;
            } else {
                group->open = false;
            }
            break;
        }
        if (frame->follows)
            continue;
        if (!parts.plain) {
            memset(frame->data - VNET_HEADER, 0, VNET_HEADER);
            continue;
        }
        /* A new write: in the place of the group that just closed, a free one, or the oldest. */
        if (g == used && used < JOIN_GROUPS) {
            used++;
        } else {
            if (g == used)
                g = oldest++ % JOIN_GROUPS;
            finish(frames, &groups[g]);
        }
        groups[g] = (Group){
            .first = i, .last = i, .segments = 1, .total = parts.payload, .parts = parts, .open = true};
    }
    for (uint32_t g = 0; g < used; g++)
        finish(frames, &groups[g]);
}
