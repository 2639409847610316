#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "pump_io.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

void zt_tap_prepare(int fd, zt_feature *tso, zt_feature *uso)
{
    int header = VNET_HEADER;
    unsigned flags = TUN_F_CSUM;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 && tso->on) {
        tso->what = "TUNSETVNETHDRSZ";
        zt_refuse(tso, errno);
        uso->on = 0;
    }
    if (tso->on)
        flags |= TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    else
        uso->on = 0;
    if (uso->on && ioctl(fd, TUNSETOFFLOAD, flags | TUN_F_USO4 | TUN_F_USO6) == 0)
        return;
    if (uso->on) {
        uso->what = "TUN_F_USO4";
        zt_refuse(uso, errno);
    }
    if (ioctl(fd, TUNSETOFFLOAD, flags) != 0 && tso->on) {
        tso->what = "TUNSETOFFLOAD";
        zt_refuse(tso, errno);
        ioctl(fd, TUNSETOFFLOAD, 0);
    }
}

int zt_tap_read(const zt_tap *tap, uint8_t *buffer, zt_vnet *vnet, uint8_t **frame)
{
    uint32_t header = tap->vnet ? VNET_HEADER : 0;
    ssize_t n;
    do
        n = read(tap->fd, buffer, TAP_ROOM);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == EAGAIN ? 0 : -1;
    if (n == 0)
        return -1;
    if ((size_t)n <= header)
        return 0;
    memset(vnet, 0, sizeof *vnet);
    memcpy(vnet, buffer, header);
    *frame = buffer + header;
    return (int)(n - header);
}

/* The stretches of a frame and of those that go along with it. */
static int gather(struct iovec *pieces, const zt_tap_frame *frames, const zt_tap_frame *frame, bool vnet)
{
    uint32_t header = vnet ? VNET_HEADER : 0;
    int count = 0;
    pieces[count++] = (struct iovec){frame->data - header, frame->size + header};
    for (uint32_t i = frame->next; i != JOIN_END; i = frames[i].next)
        pieces[count++] = (struct iovec){frames[i].data + frames[i].headers, frames[i].size - frames[i].headers};
    return count;
}

static const zt_tap *find(const zt_tap *taps, uint32_t count, uint64_t nwid)
{
    for (uint32_t i = 0; i < count; i++)
        if (taps[i].fd >= 0 && taps[i].nwid == nwid)
            return &taps[i];
    return NULL;
}

void zt_tap_write(zt_lane *lane, const zt_tap *taps, uint32_t tap_count, zt_io_counters *counters)
{
    struct iovec pieces[JOIN_SEGMENTS_MAX];
    const zt_tap *tap = NULL;
    for (uint32_t first = 0, end; first < lane->frame_count; first = end) {
        /* Runs of frames for one TAP: usually there is one run. */
        uint64_t nwid = lane->frames[first].nwid;
        for (end = first; end < lane->frame_count && lane->frames[end].nwid == nwid; end++)
            ;
        if (!tap || tap->nwid != nwid)
            tap = find(taps, tap_count, nwid);
        if (!tap) {
            shared_count(&counters->tap_failed, end - first);
            continue;
        }
        zt_tap_frame *frames = lane->frames + first;
        zt_join(frames, end - first, tap->kinds);
        for (uint32_t i = 0; i < end - first; i++) {
            if (frames[i].follows)
                continue;
            int count = gather(pieces, frames, &frames[i], tap->vnet);
            shared_count(&counters->tap_writes, 1);
            shared_count(&counters->tap_joined, (uint64_t)count - 1);
            ssize_t n;
            do
                n = count == 1 ? write(tap->fd, pieces[0].iov_base, pieces[0].iov_len)
                               : writev(tap->fd, pieces, count);
            while (n < 0 && errno == EINTR);
            if (n < 0)
                shared_count(&counters->tap_failed, (uint64_t)count);
        }
    }
}

bool zt_tap_write_one(const zt_tap *tap, const void *frame, size_t size)
{
    static const uint8_t nothing[VNET_HEADER];
    struct iovec pieces[2] = {{(void *)nothing, tap->vnet ? VNET_HEADER : 0}, {(void *)frame, size}};
    return writev(tap->fd, pieces, 2) > 0;
}
