/* The pump's system calls: UDP in and out in batches, TAP in and out in bursts.
 *
 * Nothing here blocks, except zt_udp_send for a bounded time when asked to. Descriptors belong to
 * the caller. Every kernel feature that is used when present can be switched off beforehand, and is
 * switched off by itself when the kernel turns out to refuse it; `error` then says why.
 */
#ifndef ZT_PUMP_IO_H
#define ZT_PUMP_IO_H

#include <stdint.h>
#include <sys/socket.h>
#include <netinet/in.h>

#include "switch_lane.h"

enum {
    UDP_BATCH = 16,           /* messages of one receive call, each up to 64 KiB after GRO */
    SLICE_NS = 100000,
    UDP_ROOM = 65536,
    UDP_MESSAGES = 64,        /* of one send call */
    UDP_PIECES = 1024,        /* stretches of memory in one send call */
    TAP_ROOM = 65536 + 128,   /* one burst with its vnet header */
};

/* A feature that is on until something speaks against it; any thread may find that out. */
typedef struct {
    uint8_t on;       /* atomic */
    int error;        /* atomic: what the kernel said, 0 while it said nothing */
    const char *what; /* the option or request that was tried; set where the feature is */
} zt_feature;

static inline void zt_refuse(zt_feature *feature, int error)
{
    __atomic_store_n(&feature->error, error, __ATOMIC_RELAXED);
    __atomic_store_n(&feature->on, 0, __ATOMIC_RELEASE);
}

static inline int zt_refused(const zt_feature *feature)
{
    return __atomic_load_n(&feature->error, __ATOMIC_RELAXED);
}

typedef struct {
    int fd;
    int32_t id;            /* the caller's number */
    uint8_t ipv6;          /* address family of the socket */
    zt_feature gso;        /* UDP_SEGMENT */
    zt_feature gro;        /* UDP_GRO */
} zt_socket;

typedef struct {
    int fd;
    uint64_t nwid;
    uint8_t vnet;          /* reads and writes carry a vnet header */
    uint8_t kinds;         /* what may be joined for it: JOIN_TCP | JOIN_UDP */
} zt_tap;

/* One writer, any reader. */
typedef struct {
    uint64_t udp_receives;      /* calls */
    uint64_t udp_merged;        /* messages that held several datagrams (GRO) */
    uint64_t udp_truncated;     /* longer than 64 KiB */
    uint64_t udp_sends;         /* calls */
    uint64_t udp_segmented;     /* messages that held several datagrams (GSO) */
    uint64_t udp_segment_refused; /* and had to be sent one by one */
    uint64_t udp_blocked;       /* datagrams dropped, the socket was full */
    uint64_t udp_failed;        /* datagrams that the kernel refused */
    uint64_t tap_reads;         /* bursts */
    uint64_t tap_writes;        /* calls */
    uint64_t tap_joined;        /* frames that went along in another's write */
    uint64_t tap_failed;        /* frames that the kernel refused */
} zt_io_counters;

/* Room for one receive call. */
typedef struct {
    uint8_t *buffers;      /* owned: UDP_BATCH * UDP_ROOM */
    struct mmsghdr messages[UDP_BATCH];
    struct iovec pieces[UDP_BATCH];
    struct sockaddr_in6 names[UDP_BATCH];
    uint8_t control[UDP_BATCH][CMSG_SPACE(sizeof(int))] __attribute__((aligned(8)));
    zt_received received[UDP_BATCH];
} zt_udp_in;

/* Room for one send call. */
typedef struct {
    struct mmsghdr messages[UDP_MESSAGES];
    struct iovec pieces[UDP_PIECES];
    struct sockaddr_in6 names[UDP_MESSAGES];
    uint8_t control[UDP_MESSAGES][CMSG_SPACE(sizeof(uint16_t))] __attribute__((aligned(8)));
    const zt_out *outs[UDP_MESSAGES]; /* the run that a message carries, NULL: a single datagram */
    uint32_t counts[UDP_MESSAGES];    /* datagrams of each message */
} zt_udp_out;

/* Asks the scheduler for short turns (SLICE_NS): the thread gets no more of a processor than before,
 * but runs sooner after it is woken. Linux 6.12 and later grant that; elsewhere it has no effect. */
void zt_thread_prefer_latency(void);

/* Buffers of `bytes` where allowed, and the features unless switched off (on = 0) by the caller. */
void zt_udp_prepare(zt_socket *socket, int receive_bytes, int send_bytes);

/* What waits on the socket, up to UDP_BATCH messages; the number of entries in in->received. Their
 * data stays valid until the next call. */
int zt_udp_receive(zt_udp_in *in, const zt_socket *socket, zt_io_counters *counters);

/* Sends the lane's datagrams, all runs of one socket in as few calls as possible. `wait_ms`: how
 * long a full socket is waited for before what is left for it is dropped. */
void zt_udp_send(zt_udp_out *out, zt_socket *sockets, uint32_t socket_count, const zt_lane *lane,
                 int wait_ms, zt_io_counters *counters);

/* One datagram of the control plane; `ttl` 0 is the socket's own. False: not sent. */
bool zt_udp_send_one(const zt_socket *socket, const zt_place *place, const void *data, size_t size, int ttl);

/* Turns the TAP's offloads on: checksum and TCP segmentation, then UDP's too if the kernel has it. */
void zt_tap_prepare(int fd, zt_feature *tso, zt_feature *uso);

/* One burst from a TAP into `buffer` (TAP_ROOM bytes): bytes of the frame, *frame at it; 0 when
 * nothing waits, -1 when the device is gone. */
int zt_tap_read(const zt_tap *tap, uint8_t *buffer, zt_vnet *vnet, uint8_t **frame);

/* Joins the lane's frames where their TAP allows it and writes them. */
void zt_tap_write(zt_lane *lane, const zt_tap *taps, uint32_t tap_count, zt_io_counters *counters);

/* One frame of the control plane. */
bool zt_tap_write_one(const zt_tap *tap, const void *frame, size_t size);

#endif
