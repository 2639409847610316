# cython: cdivision=True
"""Datagram to frame and frame to datagrams, in batches, without Python (chapter 02, sections 2 and 4;
chapter 04, sections 9 to 11).

::

    switch_receive (inbound.pyx)                                     switch_transmit (outbound.pyx)
    Received[]  (UDP)                                                Burst[]  (TAP)
        │ classify: for us / others, head / fragment                     │ network, MACs -> peer, route
        ├─ others ──► relay ── hops + 1 ──────────────► datagrams        ├─ multicast, unknown, ──► FRAME
        │               └─ cannot ──► RELAY, INTRODUCE                    │  credentials due
        ├─ piece ──► join with its neighbours, or the ring               │ filter: once per burst
        │             (whole now, or wait)                               │ cut into frames   ┐ one pass over
        ▼ whole packet                                                   │ checksum, seal    ┘ the payload
        ├─ HELLO that says nothing new ── OK ─────────► datagrams        │ split into equal pieces
        ├─ other HELLO in the clear, unknown source ──► HELLO, UNKNOWN   │
        ▼ open: pieces -> arena, one pass                                ▼
        │ frames of any verb: no repeat of an earlier one            datagrams
        ├─ other verbs, gate closed ──► PACKET
        ▼ FRAME, EXT_FRAME:
          network, gate, filter, MAC checks
        ▼
      frames (Ethernet header written over the packet's)

An arrow to a name in capitals is a punt: a record copied into the bounded queue for the control
plane. Everything else stays where it is: datagrams and frames that result point into the lane's
arena or the caller's buffers, and are valid until the caller resets the lane.

A batch runs under the tables' read lock, which the caller takes once. The two directions share the
ring, the punt queue and the introductions, each behind its own mutex that is held for one entry;
every other word that both write is atomic.
"""

import os
from typing import NamedTuple

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from zt._fast.fragment cimport pthread_mutex_t, ring_free, ring_init
from zt._fast.inbound cimport FRAME_PUNT, deliver, switch_receive
from zt._fast.offload cimport VNET_HEADER
from zt._fast.outbound cimport switch_transmit
from zt._fast.plane cimport (
    LANE_END, LANE_HEADROOM, PUNT_DROPPED, PUNT_FRAME, PUNT_HELLO, PUNT_INTRODUCE, PUNT_PACKET, PUNT_RECEIVED,
    PUNT_RELAY, PUNT_SEND, PUNT_TRUSTED, PUNT_UNKNOWN, VERB_COMPRESSED, VERB_EXT_FRAME, VERB_FRAME, VERB_MASK,
    WIRE_PACKET_MAX, WIRE_PACKET_MIN, WIRE_SOURCE, WIRE_VERB, Cursor, load40, zt_datagram, zt_lane_allocate,
    zt_lane_borrow, zt_lane_init, zt_lane_reset, zt_lane_space, zt_lane_wipe, zt_out, zt_punt,
    zt_queue_dropped, zt_queue_free, zt_queue_init, zt_queue_take,
)
from zt._fast.tables cimport (
    Peer, find_peer, make_place, pthread_rwlock_rdlock, pthread_rwlock_unlock, shared_snapshot,
    shared_store,
)


cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *lock)


cdef enum:
    PUNT_LIMIT = 4 << 20   # bytes that wait for the control plane
    # of the scratch lane
    ARENA = 1 << 19
    DATAGRAMS = 1 << 12
    FRAMES = 1 << 10


# The working space of every Switch's methods, which are for one thread of the process: so thousands
# of simulated nodes share it. A pump's threads have their own.
cdef zt_lane scratch


# punt kinds (docs/architecture.md)
HELLO = PUNT_HELLO
UNKNOWN = PUNT_UNKNOWN
TRUSTED = PUNT_TRUSTED
PACKET = PUNT_PACKET
RELAY = PUNT_RELAY
FRAME = PUNT_FRAME
INTRODUCE = PUNT_INTRODUCE
RECEIVED = PUNT_RECEIVED
SEND = PUNT_SEND
DROPPED = PUNT_DROPPED

DROP_REASONS = (
    "malformed", "self", "hops", "relay", "armor", "repeat", "network", "source_mac", "bridge", "size",
    "filter",
)  # fmt: skip


class Punt(NamedTuple):
    """Something for the control plane (docs/architecture.md)."""

    kind: int
    socket: int
    ip: bytes
    port: int
    address: int
    nwid: int
    hops: int
    data: bytes


cdef list parse_punts(zt_queue *queue):
    """Takes all records out of the queue."""
    cdef size_t used, at = 0
    cdef uint8_t *data = zt_queue_take(queue, &used)
    cdef zt_punt *record
    result = []
    try:
        while at < used:
            record = <zt_punt *>(data + at)
            at += sizeof(zt_punt)
            result.append(Punt(
                record.kind, record.place.socket, record.place.ip[: record.place.ip_size],
                record.place.port, record.address, record.nwid, record.hops,
                (data + at)[: record.size],
            ))
            at += record.size
            at = (at + 7) & ~<size_t>7
        return result
    finally:
        free(data)


cdef dict lane_counters(const zt_lane_counters *counters):
    cdef zt_lane_counters c
    shared_snapshot(&c, counters, sizeof(c))
    return {
        "datagrams_in": c.datagrams_in, "bytes_in": c.bytes_in,
        "datagrams_out": c.datagrams_out, "bytes_out": c.bytes_out,
        "frames_in": c.frames_in, "frames_out": c.frames_out,
        "ext_frames_in": c.ext_frames_in, "ext_frames_out": c.ext_frames_out,
        "greeted": c.greeted, "relayed": c.relayed, "punts": c.punts,
        "drop_malformed": c.drop_malformed, "drop_self": c.drop_self, "drop_hops": c.drop_hops,
        "drop_relay": c.drop_relay, "drop_armor": c.drop_armor,
        "drop_stranger": c.drop_stranger, "drop_repeat": c.drop_repeat,
        "drop_network": c.drop_network,
        "drop_source_mac": c.drop_source_mac, "drop_bridge_in": c.drop_bridge_in,
        "drop_bridge_out": c.drop_bridge_out, "drop_size_in": c.drop_size_in,
        "drop_size_out": c.drop_size_out, "drop_filter_in": c.drop_filter_in,
        "drop_filter_out": c.drop_filter_out,
    }  # fmt: skip


cdef class Switch:
    """The switch of one node over its tables.

    The methods take a datagram, a frame or one batch of them, for tests, the simulator and the control
    plane; what comes of it piles up until taken. `seed` (32 bytes) makes packet IDs predictable,
    for simulations only."""

    def __cinit__(self, Tables tables not None, *, bytes seed=None):
        self.tables = tables
        self.plane.core = &tables.core
        ring_init(&self.plane.ring)
        zt_queue_init(&self.plane.punts, PUNT_LIMIT)
        pthread_mutex_init(&self.plane.lock, NULL)
        if seed is not None and len(seed) != 32:
            raise ValueError("a seed has 32 bytes")
        if seed is None:
            seed = os.urandom(32)
        zt_lane_init(&self.lane, <const uint8_t *>seed)
        if scratch.arena == NULL and zt_lane_allocate(&scratch, ARENA, DATAGRAMS, FRAMES):
            raise MemoryError
        zt_lane_borrow(&self.lane, &scratch)
        self.datagrams = []
        self.frames = []

    def __dealloc__(self):
        ring_free(&self.plane.ring)
        zt_queue_free(&self.plane.punts)
        pthread_mutex_destroy(&self.plane.lock)
        free(self.plane.introductions)
        zt_lane_wipe(&self.lane)

    def datagram(self, int socket, bytes ip not None, int port, bytes data not None, int64_t now_ms):
        """A datagram received on a local socket. ValueError: no address or port."""
        self.datagrams_in(socket, ip, port, data, len(data), now_ms)

    def frame(self, uint64_t nwid, bytes frame not None, int64_t now_ms):
        """A whole Ethernet frame from the network's TAP."""
        self.burst(nwid, bytes(VNET_HEADER), frame, now_ms)

    def frames_in(self, uint64_t nwid, frames, int64_t now_ms):
        """Whole frames that were read from the network's TAP as one batch. ValueError: more than 64."""
        cdef Burst[64] batch
        cdef uint8_t[::1] view
        cdef uint32_t count = 0
        if len(frames) > 64:
            raise ValueError("a batch has up to 64 frames")
        copies = [bytearray(frame) for frame in frames if frame]  # a checksum may be filled in
        memset(batch, 0, sizeof(batch))
        for view in copies:
            batch[count].nwid = nwid
            batch[count].data = &view[0]
            batch[count].size = <uint32_t>view.shape[0]
            count += 1
        self.run(NULL, batch, count, now_ms, 1)

    def datagrams_in(
        self, int socket, bytes ip not None, int port, bytes data not None, uint32_t segment,
        int64_t now_ms, *, int times=1
    ):
        """Datagrams of `segment` bytes each from one place, the last may be shorter, as UDP_GRO
        brings them. `times`: for benchmarks, handles them again and again and keeps the results of
        the last time. ValueError: no address or port."""
        cdef bytearray copy
        cdef uint8_t[::1] view
        cdef Received batch
        make_place(&batch.place, socket, ip, port)
        if not data:
            return
        copy = bytearray(data)  # relaying writes into it
        view = copy
        batch.data = &view[0]
        batch.size = <uint32_t>len(data)
        batch.segment = segment if segment else batch.size
        self.run(&batch, NULL, 1, now_ms, times)

    def burst(
        self, uint64_t nwid, bytes vnet not None, bytes frame not None, int64_t now_ms, *, int times=1
    ):
        """What a read from a TAP with vnet headers brings (see offload.cut). `times` as above."""
        cdef bytearray copy
        cdef uint8_t[::1] view
        cdef Burst batch
        if len(vnet) != VNET_HEADER:
            raise ValueError("a vnet header has 10 bytes")
        if not frame:
            return
        copy = bytearray(frame)  # a checksum may be filled in
        view = copy
        batch.nwid = nwid
        batch.data = &view[0]
        batch.size = <uint32_t>len(frame)
        memcpy(&batch.vnet, <const uint8_t *>vnet, VNET_HEADER)
        self.run(NULL, &batch, 1, now_ms, times)

    cdef int run(
        self, const Received *received, const Burst *bursts, uint32_t count, int64_t now, int times
    ) except -1:
        cdef Cursor at
        cdef bint done
        while times > 0:
            times -= 1
            memset(&at, 0, sizeof(Cursor))
            done = False
            while not done:
                pthread_rwlock_rdlock(&self.tables.core.lock)
                if received != NULL:
                    done = switch_receive(&self.plane, &self.lane, received, count, &at, now)
                else:
                    done = switch_transmit(&self.plane, &self.lane, bursts, count, &at, now)
                pthread_rwlock_unlock(&self.tables.core.lock)
                if times:
                    zt_lane_reset(&self.lane)
                else:
                    self.collect()
        return 0

    def packet(self, int socket, bytes ip not None, int port, bytes packet not None, int64_t now_ms):
        """An opened FRAME or EXT_FRAME once more, after the gate opened. False: still refused (or
        it needs the control plane for another reason, or its peer is gone)."""
        cdef uint8_t *space
        cdef Peer *peer
        cdef uint32_t n = <uint32_t>len(packet)
        cdef bint done
        if not WIRE_PACKET_MIN <= n <= WIRE_PACKET_MAX:
            raise ValueError("a packet has 28 to 10024 bytes")
        if packet[WIRE_VERB] & (VERB_COMPRESSED | VERB_MASK) not in (VERB_FRAME, VERB_EXT_FRAME):
            raise ValueError("neither FRAME nor EXT_FRAME, or still compressed")
        space = zt_lane_space(&self.lane, LANE_HEADROOM + n) + LANE_HEADROOM
        memcpy(space, <const uint8_t *>packet, n)
        pthread_rwlock_rdlock(&self.tables.core.lock)
        peer = find_peer(&self.tables.core, load40(space + WIRE_SOURCE))
        done = peer != NULL and deliver(&self.plane, &self.lane, NULL, peer, space, n) != FRAME_PUNT
        pthread_rwlock_unlock(&self.tables.core.lock)
        self.collect()
        return done

    cdef int collect(self) except -1:
        """Hands the lane's results to the pump, or copies them out; resets it."""
        cdef zt_lane *lane = &self.lane
        cdef zt_out *out
        cdef zt_datagram *datagram
        cdef uint32_t i, at
        if self.plane.flush != NULL:
            with nogil:
                self.plane.flush(self.plane.pump, lane)
            zt_lane_reset(lane)
            return 0
        for i in range(lane.out_count):
            out = &lane.outs[i]
            at = out.first
            ip = out.place.ip[: out.place.ip_size]
            while at != LANE_END:
                datagram = &lane.datagrams[at]
                data = datagram.head[: datagram.head_size]
                if datagram.tail_size:
                    data += datagram.tail[: datagram.tail_size]
                self.datagrams.append((out.place.socket, ip, out.place.port, data))
                at = datagram.next
        for i in range(lane.frame_count):
            self.frames.append((lane.frames[i].nwid, lane.frames[i].data[: lane.frames[i].size]))
        zt_lane_reset(lane)
        return 0

    def take_datagrams(self):
        """What is to be sent: (socket, ip, port, datagram), in order."""
        taken = self.datagrams
        self.datagrams = []
        return taken

    def take_frames(self):
        """What is to be written to TAPs: (nwid, frame), in order."""
        taken = self.frames
        self.frames = []
        return taken

    def take_punts(self):
        """What waits for the control plane, in order."""
        return parse_punts(&self.plane.punts)

    def tell_drops(self, int credit):
        """The next `credit` drops become punts of kind DROPPED; 0: nobody listens any more."""
        shared_store(&self.plane.drop_credit, credit)

    def counters(self):
        """Of these methods, not of a Pump's threads; `punts_lost` of both."""
        result = lane_counters(&self.lane.counters)
        result["punts_lost"] = zt_queue_dropped(&self.plane.punts)
        return result
