#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>

#include "bytes.h"
#include "pump_io.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* ---- addresses ---- */

static const uint8_t V4_MAPPED[12] = {[10] = 0xff, [11] = 0xff};

static socklen_t to_name(struct sockaddr_in6 *name, const zt_socket *socket, const zt_place *place)
{
    struct sockaddr_in *four = (struct sockaddr_in *)name;
    memset(name, 0, sizeof *name);
    if (!socket->ipv6) {
        four->sin_family = AF_INET;
        four->sin_port = htons(place->port);
        memcpy(&four->sin_addr, place->ip, 4);
        return sizeof *four;
    }
    name->sin6_family = AF_INET6;
    name->sin6_port = htons(place->port);
    if (place->ip_size == 4) {
        memcpy(&name->sin6_addr, V4_MAPPED, 12);
        memcpy((uint8_t *)&name->sin6_addr + 12, place->ip, 4);
    } else {
        memcpy(&name->sin6_addr, place->ip, 16);
    }
    return sizeof *name;
}

static void from_name(zt_place *place, const zt_socket *socket, const struct sockaddr_in6 *name)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)name;
    const uint8_t *ip = (const uint8_t *)&name->sin6_addr;
    memset(place, 0, sizeof *place);
    place->socket = socket->id;
    place->ip_size = 4;
    if (name->sin6_family == AF_INET) {
        place->port = ntohs(four->sin_port);
        memcpy(place->ip, &four->sin_addr, 4);
        return;
    }
    place->port = ntohs(name->sin6_port);
    if (memcmp(ip, V4_MAPPED, 12) == 0) {
        memcpy(place->ip, ip + 12, 4);
    } else {
        place->ip_size = 16;
        memcpy(place->ip, ip, 16);
    }
}

/* ---- features ---- */

static void set_buffer(int fd, int force, int plain, int bytes)
{
    if (bytes && setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof bytes) != 0)
        setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof bytes);
}

void zt_udp_prepare(zt_socket *socket, int receive_bytes, int send_bytes)
{
    int value = 0;
    socklen_t size = sizeof value;
    if (getsockopt(socket->fd, SOL_SOCKET, SO_DOMAIN, &value, &size) == 0)
        socket->ipv6 = value == AF_INET6;
    socket->gso.what = "UDP_SEGMENT";
    socket->gro.what = "UDP_GRO";
    set_buffer(socket->fd, SO_RCVBUFFORCE, SO_RCVBUF, receive_bytes);
    set_buffer(socket->fd, SO_SNDBUFFORCE, SO_SNDBUF, send_bytes);
    size = sizeof value;
    if (socket->gso.on && getsockopt(socket->fd, IPPROTO_UDP, UDP_SEGMENT, &value, &size) != 0)
        zt_refuse(&socket->gso, errno);
    value = socket->gro.on;
    if (setsockopt(socket->fd, IPPROTO_UDP, UDP_GRO, &value, sizeof value) != 0 && socket->gro.on)
        zt_refuse(&socket->gro, errno);
}

/* ---- in ---- */

static uint32_t segment_size(const struct msghdr *message, uint32_t size)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)message, c)) {
        if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
            int segment;
            memcpy(&segment, CMSG_DATA(c), sizeof segment);
            if (segment > 0)
                return (uint32_t)segment;
        }
    }
    return size;
}

int zt_udp_receive(zt_udp_in *in, const zt_socket *socket, zt_io_counters *counters)
{
    int got, count = 0;
    for (int i = 0; i < UDP_BATCH; i++) {
        struct msghdr *m = &in->messages[i].msg_hdr;
        in->pieces[i] = (struct iovec){in->buffers + (size_t)i * UDP_ROOM, UDP_ROOM};
        *m = (struct msghdr){
            .msg_name = &in->names[i], .msg_namelen = sizeof in->names[i], .msg_iov = &in->pieces[i],
            .msg_iovlen = 1, .msg_control = in->control[i],
            .msg_controllen = socket->gro.on ? sizeof in->control[i] : 0};
    }
    shared_count(&counters->udp_receives, 1);
    got = recvmmsg(socket->fd, in->messages, UDP_BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < got; i++) {
        zt_received *r = &in->received[count];
        if (in->messages[i].msg_hdr.msg_flags & MSG_TRUNC) {
            shared_count(&counters->udp_truncated, 1);
            continue;
        }
        if (in->messages[i].msg_len == 0)
            continue;
        from_name(&r->place, socket, &in->names[i]);
        r->data = in->pieces[i].iov_base;
        r->size = in->messages[i].msg_len;
        r->segment = segment_size(&in->messages[i].msg_hdr, r->size);
        shared_count(&counters->udp_merged, r->segment < r->size);
        count++;
    }
    return count;
}

/* ---- out ---- */

/* A call in the making: messages and stretches filled so far. */
typedef struct {
    zt_udp_out *room;
    const zt_lane *lane;
    zt_socket *socket;
    zt_io_counters *counters;
    int wait_ms;
    unsigned messages, pieces;
} Call;

/* Adds a datagram's stretches; those that continue the one before are merged with it. */
static void add_pieces(Call *call, struct msghdr *message, const zt_datagram *datagram)
{
    struct iovec *last = message->msg_iovlen ? &message->msg_iov[message->msg_iovlen - 1] : NULL;
    const uint8_t *data = datagram->head;
    size_t size = datagram->head_size;
    for (int part = 0; part < 2 && size; part++) {
        if (last && (uint8_t *)last->iov_base + last->iov_len == data) {
            last->iov_len += size;
        } else {
            last = &call->room->pieces[call->pieces++];
            *last = (struct iovec){(void *)data, size};
            message->msg_iovlen++;
        }
        data = datagram->tail;
        size = datagram->tail_size;
    }
}

static struct msghdr *add_message(Call *call, const zt_out *out, uint32_t count)
{
    unsigned i = call->messages++;
    struct msghdr *message = &call->room->messages[i].msg_hdr;
    *message = (struct msghdr){
        .msg_name = &call->room->names[i], .msg_iov = &call->room->pieces[call->pieces]};
    message->msg_namelen = to_name(&call->room->names[i], call->socket, &out->place);
    call->room->outs[i] = count > 1 ? out : NULL;
    call->room->counts[i] = count;
    if (count > 1) {
        uint16_t segment = (uint16_t)out->segment;
        struct cmsghdr *c = (struct cmsghdr *)call->room->control[i];
        message->msg_control = c;
        message->msg_controllen = CMSG_SPACE(sizeof segment);
        c->cmsg_level = IPPROTO_UDP;
        c->cmsg_type = UDP_SEGMENT;
        c->cmsg_len = CMSG_LEN(sizeof segment);
        memcpy(CMSG_DATA(c), &segment, sizeof segment);
    }
    return message;
}

static bool wait_writable(const Call *call)
{
    struct pollfd fd = {.fd = call->socket->fd, .events = POLLOUT};
    return call->wait_ms > 0 && poll(&fd, 1, call->wait_ms) > 0;
}

static void send_singly(Call *call, const zt_out *out);

/* Sends what has been gathered. A message that the kernel refuses is left out; one that it refuses
 * for being segmented goes again in single datagrams. */
static void flush(Call *call)
{
    unsigned done = 0, total = call->messages;
    bool waited = false;
    while (done < total) {
        int sent = sendmmsg(call->socket->fd, call->room->messages + done, total - done,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        shared_count(&call->counters->udp_sends, 1);
        if (sent > 0) {
            for (int i = 0; i < sent; i++)
                shared_count(&call->counters->udp_segmented, call->room->outs[done + i] != NULL);
            done += sent;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno == EAGAIN || errno == ENOBUFS) {
            if (!waited && wait_writable(call)) {
                waited = true;
                continue;
            }
            for (; done < total; done++)
                shared_count(&call->counters->udp_blocked, call->room->counts[done]);
            break;
        }
        const zt_out *out = call->room->outs[done];
        if (out && (errno == EIO || errno == EINVAL || errno == EMSGSIZE || errno == EOPNOTSUPP)) {
            /* EIO: the device cannot do it at all. Else this path's MTU is smaller than a segment. */
            if (errno == EIO || errno == EOPNOTSUPP)
                zt_refuse(&call->socket->gso, errno);
            shared_count(&call->counters->udp_segment_refused, 1);
            zt_udp_out again;
            Call single = *call;
            single.room = &again;
            single.messages = single.pieces = 0;
            send_singly(&single, out);
            flush(&single);
        } else {
            shared_count(&call->counters->udp_failed, call->room->counts[done]);
        }
        done++;
    }
    call->messages = call->pieces = 0;
}

static void send_singly(Call *call, const zt_out *out)
{
    for (uint32_t i = out->first; i != LANE_END; i = call->lane->datagrams[i].next) {
        if (call->messages == UDP_MESSAGES || call->pieces + 2 > UDP_PIECES)
            flush(call);
        add_pieces(call, add_message(call, out, 1), &call->lane->datagrams[i]);
    }
}

void zt_udp_send(zt_udp_out *room, zt_socket *sockets, uint32_t socket_count, const zt_lane *lane,
                 int wait_ms, zt_io_counters *counters)
{
    Call call = {.room = room, .lane = lane, .counters = counters, .wait_ms = wait_ms};
    for (uint32_t i = 0; i < lane->out_count; i++) {
        const zt_out *out = &lane->outs[i];
        if (!call.socket || call.socket->id != out->place.socket) {
            if (call.socket)
                flush(&call);
            call.socket = NULL;
            for (uint32_t s = 0; s < socket_count && !call.socket; s++)
                if (sockets[s].fd >= 0 && sockets[s].id == out->place.socket)
                    call.socket = &sockets[s];
        }
        if (!call.socket || (!call.socket->ipv6 && out->place.ip_size != 4)) {
            shared_count(&counters->udp_failed, out->count);
            continue;
        }
        if (out->count == 1 || !__atomic_load_n(&call.socket->gso.on, __ATOMIC_ACQUIRE)) {
            send_singly(&call, out);
            continue;
        }
        if (call.messages == UDP_MESSAGES || call.pieces + 2 * out->count > UDP_PIECES)
            flush(&call);
        struct msghdr *message = add_message(&call, out, out->count);
        for (uint32_t d = out->first; d != LANE_END; d = lane->datagrams[d].next)
            add_pieces(&call, message, &lane->datagrams[d]);
    }
    if (call.socket)
        flush(&call);
}

bool zt_udp_send_one(const zt_socket *socket, const zt_place *place, const void *data, size_t size, int ttl)
{
    struct sockaddr_in6 name;
    struct iovec piece = {(void *)data, size};
    uint8_t control[CMSG_SPACE(sizeof ttl)] __attribute__((aligned(8)));
    struct msghdr message = {.msg_name = &name, .msg_iov = &piece, .msg_iovlen = 1};
    if (!socket->ipv6 && place->ip_size != 4)
        return false;
    message.msg_namelen = to_name(&name, socket, place);
    if (ttl) {
        bool six = socket->ipv6 && place->ip_size == 16;
        struct cmsghdr *c = (struct cmsghdr *)control;
        memset(control, 0, sizeof control);
        c->cmsg_level = six ? IPPROTO_IPV6 : IPPROTO_IP;
        c->cmsg_type = six ? IPV6_HOPLIMIT : IP_TTL;
        c->cmsg_len = CMSG_LEN(sizeof ttl);
        memcpy(CMSG_DATA(c), &ttl, sizeof ttl);
        message.msg_control = control;
        message.msg_controllen = sizeof control;
    }
    return sendmsg(socket->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size;
}
