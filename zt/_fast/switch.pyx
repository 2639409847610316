# cython: cdivision=True
"""Datagram to frame and frame to datagrams, in batches, without Python (chapter 02, sections 2 and 4;
chapter 04, sections 9 to 11).

::

    switch_receive                                                   switch_transmit
    Received[]  (UDP)                                                Burst[]  (TAP)
        │ classify: for us / others, head / fragment                     │ network, MACs -> peer, route
        ├─ others ──► relay ── hops + 1 ──────────────► datagrams        ├─ multicast, unknown, ──► FRAME
        │               └─ cannot ──► RELAY, INTRODUCE                    │  credentials due
        ├─ piece ──► join with its neighbours, or the ring               │ filter: once per burst
        │             (whole now, or wait)                               │ cut into frames   ┐ one pass over
        ▼ whole packet                                                   │ checksum, seal    ┘ the payload
        ├─ HELLO in the clear, unknown source ──► HELLO, UNKNOWN         │ split into equal pieces
        ▼ open: pieces -> arena, one pass                                ▼
        ├─ other verbs, gate closed ──► PACKET                       datagrams
        ▼ FRAME, EXT_FRAME
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

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from zt._fast.cipher cimport ZT_BODY, ZT_PACKET_MIN, zt_open_iov, zt_seal_iov
from zt._fast.filter cimport (
    ZT_DROPPED, zt_credentials, zt_filter_inbound, zt_filter_outbound, zt_frame, zt_verdict
)
from zt._fast.fragment cimport (
    FRAGMENT_HEADER, FRAGMENTED, MAX_PIECES, PACKET_MAX, piece_size, ring_add, ring_free, ring_init
)
from zt._fast.offload cimport ETHERNET, HEADERS_ROOM, zt_cut_begin, zt_cut_next, zt_cut_size
from zt._fast.tables cimport (
    IN_ACCEPTED, IN_DROPPED, NO_PATH, OUT_ACCEPTED, OUT_DROPPED, Member, Network, Path, Peer, PeerPath,
    find_bridge, find_member, find_network, find_path, find_peer, find_peer_path, mac_of, make_place,
    path_at, pthread_rwlock_rdlock, pthread_rwlock_unlock, shared_add, shared_claim, shared_count,
    shared_load, shared_store,
)


cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *lock, const void *attr)
    int pthread_mutex_destroy(pthread_mutex_t *lock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)


cdef extern from "bytes.h" nogil:
    uint64_t load64_be(const void *p)
    void store64_be(void *p, uint64_t v)


cdef enum Kind:
    KIND_HELLO = 1
    KIND_UNKNOWN
    KIND_TRUSTED
    KIND_PACKET
    KIND_RELAY
    KIND_FRAME
    KIND_INTRODUCE
    KIND_RECEIVED
    KIND_SEND


# punt kinds (docs/architecture.md)
HELLO = KIND_HELLO
UNKNOWN = KIND_UNKNOWN
TRUSTED = KIND_TRUSTED
PACKET = KIND_PACKET
RELAY = KIND_RELAY
FRAME = KIND_FRAME
INTRODUCE = KIND_INTRODUCE
RECEIVED = KIND_RECEIVED
SEND = KIND_SEND


cdef enum:
    VERB_HELLO = 0x01
    VERB_FRAME = 0x06
    VERB_EXT_FRAME = 0x07
    VERB_MASK = 0x1F
    COMPRESSED = 0x80
    SUITE_TRUSTED = 2
    HOPS_MASK = 7
    RELAY_LIMIT = 3
    BEACON = 13            # size of a legacy LAN beacon
    FRAGMENT_MARK = 0xFF
    EXT_COM = 0x01
    EXT_ACKNOWLEDGE = 0x10
    FRAME_START = 38       # of the Ethernet payload in a FRAME packet
    EXT_FRAME_START = 51
    ZT_HEAD = 16           # in front of a frame's Ethernet header while it is built
    HEADROOM = 64          # in front of a packet in the arena
    INTRODUCE_MS = 10000
    NOTICE_MS = 1000
    INTRODUCTIONS = 4096
    INTRODUCTION_WAYS = 8
    PUNT_LIMIT = 4 << 20   # bytes that wait for the control plane
    OWN_ARENA = 1 << 15    # of the convenience methods


# The fixed part of a punt record; `size` bytes of data follow, padded to 8.
cdef struct Record:
    Place place
    uint64_t address
    uint64_t nwid
    uint32_t size
    uint8_t kind
    uint8_t hops


# What became of a FRAME or EXT_FRAME.
cdef enum Fate:
    FRAME_PUNT = 0   # unchanged: the control plane has to look at it
    FRAME_NOTHING    # malformed, or of a network that we are not in: it proves nothing
    FRAME_MEMBER     # passed the gate of its network, whatever the rules made of it then


# Where a packet came from.
cdef struct Origin:
    Place place
    int64_t path     # its handle, or NO_PATH


cdef inline uint64_t load40(const uint8_t *p) noexcept nogil:
    return <uint64_t>p[0] << 32 | <uint64_t>p[1] << 24 | <uint64_t>p[2] << 16 | <uint64_t>p[3] << 8 | p[4]


cdef inline uint64_t load48(const uint8_t *p) noexcept nogil:
    return load40(p) << 8 | p[5]


cdef inline void store40(uint8_t *p, uint64_t v) noexcept nogil:
    cdef int i
    for i in range(5):
        p[i] = <uint8_t>(v >> (32 - 8 * i))


cdef inline void store48(uint8_t *p, uint64_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 40)
    store40(p + 1, v & 0xFFFFFFFFFFULL)


cdef void punt(
    Plane *plane, zt_lane *lane, Kind kind, const Origin *origin, uint64_t address, uint64_t nwid,
    uint8_t hops, const iovec *pieces, int count,
) noexcept nogil:
    cdef Record record
    cdef int i
    memset(&record, 0, sizeof(Record))
    if origin != NULL:
        record.place = origin.place
    record.kind = kind
    record.address = address
    record.nwid = nwid
    record.hops = hops
    for i in range(count):
        record.size += <uint32_t>pieces[i].iov_len
    if zt_queue_put(&plane.punts, &record, sizeof(Record), pieces, count,
                    kind == KIND_HELLO or kind == KIND_UNKNOWN or kind == KIND_RELAY or kind == KIND_SEND):
        shared_count(&lane.counters.punts, 1)


cdef inline void punt_bytes(
    Plane *plane, zt_lane *lane, Kind kind, const Origin *origin, uint64_t address, uint8_t hops,
    const void *data, uint32_t size,
) noexcept nogil:
    cdef iovec piece
    piece.iov_base = <void *>data
    piece.iov_len = size
    punt(plane, lane, kind, origin, address, 0, hops, &piece, 1)


# ---- in: datagrams from a socket --------------------------------------------------------------


cdef bint switch_receive(
    Plane *plane, zt_lane *lane, const Received *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil:
    cdef Core *core = plane.core
    cdef const Received *entry
    cdef Origin origin
    cdef uint32_t known = count  # the entry that origin describes
    cdef uint8_t *p
    cdef uint32_t n
    while at.entry < count:
        if not zt_lane_has_room(lane):
            return False
        if known != at.entry:
            known = at.entry
            origin.place = batch[known].place
            origin.path = find_path(core, &origin.place)
        entry = &batch[at.entry]
        p = entry.data + at.offset
        n = step(batch, at)
        shared_count(&lane.counters.datagrams_in, 1)
        shared_count(&lane.counters.bytes_in, n)
        if n == BEACON:
            punt_bytes(plane, lane, KIND_UNKNOWN, &origin, 0, 0, p, n)
        elif n <= FRAGMENT_HEADER or (p[13] != FRAGMENT_MARK and n < <uint32_t>ZT_PACKET_MIN):
            shared_count(&lane.counters.drop_malformed, 1)
        elif load40(p + 8) != core.address:
            relay(plane, lane, &origin, p, n, now)
        elif p[13] == FRAGMENT_MARK:
            piece(plane, lane, &origin, p, n, now)
        elif p[18] & FRAGMENTED:
            head(plane, lane, &origin, p, n, batch, count, at, now)
        else:
            whole(plane, lane, &origin, p, p + ZT_BODY, n - ZT_BODY, NULL, 0, now)
    return True


cdef inline uint32_t step(const Received *batch, Cursor *at) noexcept nogil:
    """Moves the cursor past the datagram it stands at and returns that one's size."""
    cdef const Received *entry = &batch[at.entry]
    cdef uint32_t n = min(entry.segment, entry.size - at.offset)
    at.offset += n
    if at.offset >= entry.size:
        at.entry += 1
        at.offset = 0
    return n


cdef void relay(
    Plane *plane, zt_lane *lane, const Origin *origin, uint8_t *p, uint32_t n, int64_t now
) noexcept nogil:
    """A datagram for somebody else (chapter 02, 2.8): on its way unchanged but for the hops."""
    cdef Core *core = plane.core
    cdef bint fragment = p[13] == FRAGMENT_MARK
    cdef uint8_t hops = p[15] if fragment else p[18] & HOPS_MASK
    cdef uint64_t source = 0 if fragment else load40(p + 13)
    cdef uint64_t destination = load40(p + 8)
    cdef Peer *peer
    cdef Path *path
    cdef int64_t route
    if not core.relaying:
        shared_count(&lane.counters.drop_relay, 1)
        return
    if source == core.address:
        shared_count(&lane.counters.drop_self, 1)
        return
    if hops >= RELAY_LIMIT:
        shared_count(&lane.counters.drop_hops, 1)
        return
    peer = find_peer(core, destination)
    route = NO_PATH if peer == NULL else peer.route
    path = path_at(core, route)
    if path == NULL:
        route = core.upstream
        path = path_at(core, route)
    if path == NULL:
        punt_bytes(plane, lane, KIND_RELAY, origin, source, hops, p, n)
        return
    if route == origin.path:  # back to where it came from helps nobody
        shared_count(&lane.counters.drop_relay, 1)
        return
    if fragment:
        p[15] = (hops + 1) & HOPS_MASK
    else:
        p[18] = (p[18] & ~HOPS_MASK) | (hops + 1)
        introduce(plane, lane, origin, source, p, now)
    shared_store(&path.last_out, now)
    shared_count(&lane.counters.relayed, 1)
    zt_lane_send(lane, &path.place, route, p, n, NULL, 0)


cdef void introduce(
    Plane *plane, zt_lane *lane, const Origin *origin, uint64_t source, const uint8_t *p, int64_t now
) noexcept nogil:
    """Notice for the control plane, at most once per 10 s and pair. The pairs are remembered in a
    small table; while it is full of fresher ones a new pair waits for its notice."""
    cdef uint64_t destination = load40(p + 8)
    cdef uint64_t pair = min(source, destination) * 0x9E3779B97F4A7C15ULL ^ max(source, destination)
    cdef uint32_t slot = <uint32_t>(pair >> 32 ^ pair) % (INTRODUCTIONS - INTRODUCTION_WAYS)
    cdef Introduction *entry
    cdef Introduction *free_one = NULL
    cdef bint known = False
    cdef uint32_t i
    pthread_mutex_lock(&plane.lock)
    if plane.introductions == NULL:
        plane.introductions = <Introduction *>calloc(INTRODUCTIONS, sizeof(Introduction))
    if plane.introductions != NULL:
        for i in range(INTRODUCTION_WAYS):
            entry = &plane.introductions[slot + i]
            if entry.pair == pair and now - entry.time < INTRODUCE_MS:
                known = True
                break
            if entry.pair == 0 or now - entry.time >= INTRODUCE_MS:
                free_one = entry
        if not known and free_one != NULL:
            free_one.pair = pair
            free_one.time = now
    pthread_mutex_unlock(&plane.lock)
    if not known and free_one != NULL:
        punt_bytes(plane, lane, KIND_INTRODUCE, origin, source, 0, p + 8, 5)


cdef void head(
    Plane *plane, zt_lane *lane, const Origin *origin, uint8_t *p, uint32_t n,
    const Received *batch, uint32_t count, Cursor *at, int64_t now,
) noexcept nogil:
    """The first piece of a packet. Usually the others follow at once and in order: then they are
    opened from where they lie, and the cursor moves past them. Otherwise the ring keeps it."""
    cdef iovec[MAX_PIECES] rest
    cdef Cursor ahead = at[0]
    cdef uint32_t total = 0, number = 1, m
    cdef uint32_t size = n
    cdef const uint8_t *q
    while ahead.entry < count:
        q = batch[ahead.entry].data + ahead.offset
        m = step(batch, &ahead)
        if m <= FRAGMENT_HEADER or q[13] != FRAGMENT_MARK or memcmp13(p, q) != 0:
            break
        if number == 1:
            total = q[14] >> 4
            if not 2 <= total <= MAX_PIECES:
                break
        if q[14] != (total << 4 | number):
            break
        rest[number - 1].iov_base = <void *>(q + FRAGMENT_HEADER)
        rest[number - 1].iov_len = m - FRAGMENT_HEADER
        size += m - FRAGMENT_HEADER
        number += 1
        if number == total:
            shared_count(&lane.counters.datagrams_in, total - 1)
            shared_count(&lane.counters.bytes_in, size - n + (total - 1) * FRAGMENT_HEADER)
            at[0] = ahead
            if size > PACKET_MAX:
                shared_count(&lane.counters.drop_malformed, 1)
            else:
                whole(plane, lane, origin, p, p + ZT_BODY, n - ZT_BODY, rest, total - 1, now)
            return
    keep(plane, lane, origin, p, 0, 0, p, n, now)


cdef inline int memcmp13(const uint8_t *a, const uint8_t *b) noexcept nogil:
    """Packet ID and destination: the same packet?"""
    cdef int i
    for i in range(13):
        if a[i] != b[i]:
            return 1
    return 0


cdef void piece(
    Plane *plane, zt_lane *lane, const Origin *origin, const uint8_t *p, uint32_t n, int64_t now
) noexcept nogil:
    cdef uint32_t number = p[14] & 15
    if number == 0:
        shared_count(&lane.counters.drop_malformed, 1)
        return
    keep(plane, lane, origin, p, number, p[14] >> 4, p + FRAGMENT_HEADER, n - FRAGMENT_HEADER, now)


cdef void keep(
    Plane *plane, zt_lane *lane, const Origin *origin, const uint8_t *p, uint32_t number, uint32_t total,
    const uint8_t *data, uint32_t size, int64_t now,
) noexcept nogil:
    """Stores a piece in the ring, and handles the packet that it completes."""
    cdef Origin first = origin[0]
    cdef uint8_t *packet = zt_lane_space(lane, PACKET_MAX)
    cdef uint64_t id
    memcpy(&id, p, 8)
    size = ring_add(&plane.ring, id, number, total, data, size, &first.place, packet)
    if size < <uint32_t>ZT_PACKET_MIN:
        lane.arena_used -= (PACKET_MAX + 63) & ~63
        return
    first.path = find_path(plane.core, &first.place)
    if zt_lane_has_room(lane):
        whole(plane, lane, &first, packet, packet + ZT_BODY, size - ZT_BODY, NULL, 0, now)


cdef void whole(
    Plane *plane, zt_lane *lane, const Origin *origin, const uint8_t *p, const uint8_t *body, uint32_t size,
    const iovec *rest, int count, int64_t now,
) noexcept nogil:
    """A complete packet for us, still armored: header at p, body in one or more pieces."""
    cdef iovec[MAX_PIECES + 1] pieces
    cdef Core *core = plane.core
    cdef uint64_t source = load40(p + 13)
    cdef uint8_t suite = p[18] >> 3 & 7
    cdef uint8_t hops = p[18] & HOPS_MASK
    cdef uint32_t n = ZT_BODY + size
    cdef Peer *peer
    cdef Path *path
    cdef uint8_t *packet
    cdef uint64_t trusted
    cdef int i
    if source == core.address:
        shared_count(&lane.counters.drop_self, 1)
        return
    pieces[0].iov_base = <void *>p  # the header, and body up to the end of the first datagram
    pieces[0].iov_len = ZT_BODY + size
    for i in range(count):
        pieces[i + 1] = rest[i]
        n += <uint32_t>rest[i].iov_len
    if suite == SUITE_TRUSTED:
        path = path_at(core, origin.path)
        trusted = load64_be(p + 19)
        if path == NULL:
            # Only the control plane knows whether such a path would be trusted.
            punt(plane, lane, KIND_UNKNOWN, origin, source, 0, hops, pieces, count + 1)
        elif trusted == 0 or path.trusted_id != trusted:
            shared_count(&lane.counters.drop_armor, 1)
        else:
            shared_store(&path.last_in, now)
            punt(plane, lane, KIND_TRUSTED, origin, source, 0, hops, pieces, count + 1)
        return
    if suite == 0 and p[ZT_BODY] & VERB_MASK == VERB_HELLO:
        punt(plane, lane, KIND_HELLO, origin, source, 0, hops, pieces, count + 1)
        return
    peer = find_peer(core, source)
    if peer == NULL:
        punt(plane, lane, KIND_UNKNOWN, origin, source, 0, hops, pieces, count + 1)
        return
    packet = zt_lane_space(lane, HEADROOM + n) + HEADROOM
    memcpy(packet, p, ZT_BODY)
    pieces[0].iov_base = <void *>body
    pieces[0].iov_len = size
    if zt_open_iov(peer.key, packet, pieces, count + 1):
        opened(plane, lane, origin, peer, packet, n, now)
    else:
        shared_count(&lane.counters.drop_armor, 1)


cdef void opened(
    Plane *plane, zt_lane *lane, const Origin *origin, Peer *peer, uint8_t *packet, uint32_t n, int64_t now
) noexcept nogil:
    """An authentic packet in the clear, in the arena."""
    cdef uint8_t verb = packet[ZT_BODY]
    cdef uint8_t hops = packet[18] & HOPS_MASK
    cdef Path *path = path_at(plane.core, origin.path)
    cdef PeerPath *direct = find_peer_path(peer, origin.path) if path != NULL else NULL
    cdef int64_t noticed
    cdef int fate
    cdef uint8_t plain = verb & (COMPRESSED | VERB_MASK)
    shared_store(&peer.last_in, now)
    shared_add(&peer.packets_in, 1)
    if path != NULL:
        shared_store(&path.last_in, now)
    if direct != NULL and hops == 0:
        shared_store(&direct.last_in, now)
    if plain == VERB_FRAME or plain == VERB_EXT_FRAME:
        fate = deliver(plane, lane, peer, packet, n)
        if fate == FRAME_MEMBER:
            shared_store(&peer.last_frame, now)
            if direct == NULL or hops:
                noticed = shared_load(&peer.last_notice)
                if now - noticed >= NOTICE_MS and shared_claim(&peer.last_notice, noticed, now):
                    verb &= VERB_MASK
                    punt_bytes(plane, lane, KIND_RECEIVED, origin, peer.address, hops, &verb, 1)
        if fate != FRAME_PUNT:
            return
    punt_bytes(plane, lane, KIND_PACKET, origin, peer.address, hops, packet, n)


cdef int deliver(Plane *plane, zt_lane *lane, Peer *peer, uint8_t *packet, uint32_t n) noexcept nogil:
    """A FRAME or EXT_FRAME on its way to the TAP (chapter 04, 11.1 and 11.2). The Ethernet header
    is put in front of the payload where the packet is. Returns a `Fate`."""
    cdef bint extended = packet[ZT_BODY] & VERB_MASK == VERB_EXT_FRAME
    cdef uint32_t start = EXT_FRAME_START if extended else FRAME_START
    cdef Network *network
    cdef Member *member
    cdef zt_frame frame
    cdef zt_verdict verdict
    cdef zt_tap_frame *out
    cdef uint64_t own_mac
    if n < 36 + extended:
        shared_count(&lane.counters.drop_malformed, 1)
        return FRAME_NOTHING
    network = find_network(plane.core, load64_be(packet + 28))
    if network == NULL:
        shared_count(&lane.counters.drop_network, 1)
        return FRAME_NOTHING
    if extended and packet[36] & (EXT_COM | EXT_ACKNOWLEDGE):
        return FRAME_PUNT
    member = find_member(network, peer.address)
    if member == NULL or not member.allowed:
        return FRAME_PUNT
    if n <= start:
        return FRAME_MEMBER  # no payload: nothing to deliver, and nothing wrong
    own_mac = mac_of(network, peer.address)
    frame.source_mac = load48(packet + 43) if extended else own_mac
    frame.dest_mac = load48(packet + 37) if extended else network.mac
    if extended and (frame.source_mac == 0 or frame.source_mac == network.mac):
        shared_count(&lane.counters.drop_mac, 1)
        return FRAME_MEMBER
    verdict.result = 1
    if network.program != NULL:
        frame.payload = packet + start
        frame.length = n - start
        frame.ethertype = <uint16_t>(packet[start - 2] << 8 | packet[start - 1])
        frame.vlan = 0
        frame.source = peer.address
        frame.dest = plane.core.address
        zt_filter_inbound(
            network.program, member.credentials, &frame, &lane.filter_random, &verdict, NULL
        )
        if verdict.copies:
            return FRAME_PUNT  # the control plane sends copies, and judges again to learn them
    if extended and verdict.result == 1:
        if frame.source_mac != own_mac:
            if find_bridge(network, frame.source_mac) != peer.address:
                return FRAME_PUNT  # perhaps a bridge whose route is still to be learned
        elif frame.dest_mac != network.mac:
            if frame.dest_mac >> 40 & 1:
                return FRAME_PUNT
            if not network.bridge:
                verdict.result = 0
                shared_count(&lane.counters.drop_mac, 1)
                return FRAME_MEMBER
    if verdict.result == 0:
        shared_count(&lane.counters.drop_filter, 1)
        if verdict.reason != ZT_DROPPED:
            shared_add(&network.judged[<int>IN_DROPPED], 1)
        return FRAME_MEMBER
    shared_add(&network.judged[<int>IN_ACCEPTED], 1)
    if n - start > network.mtu:
        shared_count(&lane.counters.drop_size, 1)
        return FRAME_MEMBER
    store48(packet + start - 14, frame.dest_mac)
    store48(packet + start - 8, frame.source_mac)
    out = &lane.frames[lane.frame_count]
    lane.frame_count += 1
    out.nwid = network.nwid
    out.data = packet + start - ETHERNET
    out.size = n - start + ETHERNET
    shared_count(&lane.counters.frames_out, 1)
    shared_count(&lane.counters.ext_frames_in, extended)
    return FRAME_MEMBER


# ---- out: frames from a TAP -------------------------------------------------------------------


# One burst on its way out: who it is for and how it is sent.
cdef struct Outbound:
    Network *network
    Peer *peer
    Path *path
    Path *mirror       # or NULL
    Member *member     # or NULL
    bint extended      # EXT_FRAME: the MACs are not those of the two nodes
    bint foreign       # the destination lives behind the peer


cdef bint switch_transmit(
    Plane *plane, zt_lane *lane, const Burst *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil:
    cdef zt_cut cut
    cdef Outbound out
    cdef const Burst *burst
    cdef uint32_t need
    while at.entry < count:
        burst = &batch[at.entry]
        if not zt_lane_has_room(lane):
            return False
        if not zt_cut_begin(&cut, &burst.vnet, burst.data, burst.size) or burst.size <= ETHERNET:
            shared_count(&lane.counters.drop_malformed, 1)
            at.entry += 1
            continue
        # Room for the whole burst, or none of it.
        need = burst.size + cut.count * (cut.headers + 320)
        if need > lane.arena_room or cut.count * 2 * MAX_PIECES > lane.datagram_room:
            shared_count(&lane.counters.drop_malformed, 1)
            at.entry += 1
            continue
        if (lane.arena_used + need > lane.arena_room
                or lane.datagram_count + cut.count * 2 * MAX_PIECES > lane.datagram_room
                or lane.out_count + cut.count * 2 * MAX_PIECES > lane.out_room):
            return False
        shared_count(&lane.counters.frames_in, cut.count)
        if lookup(plane, lane, burst, &cut, &out, now):
            if cut.count > 1 and out.network.per_segment:
                send_each(plane, lane, &cut, &out, now)
            else:
                send_all(plane, lane, burst.data, burst.size, &cut, &out, now)
        at.entry += 1
    return True


cdef bint lookup(
    Plane *plane, zt_lane *lane, const Burst *burst, zt_cut *cut, Outbound *out, int64_t now
) noexcept nogil:
    """Chapter 04, 10: whose frame it is. False: dropped or punted."""
    cdef Core *core = plane.core
    cdef Network *network = find_network(core, burst.nwid)
    cdef uint64_t source, dest, address
    cdef bint bridged
    if network == NULL:
        shared_count(&lane.counters.drop_network, 1)
        return False
    dest = load48(burst.data)
    source = load48(burst.data + 6)
    bridged = source != network.mac
    if bridged and not network.bridge:
        shared_count(&lane.counters.drop_mac, 1)
        return False
    out.network = network
    out.member = NULL
    out.extended = bridged
    out.foreign = False
    if dest >> 40 & 1 == 0 and dest != network.mac:
        if dest >> 40 == network.mac_prefix:
            address = (dest & 0xFFFFFFFFFFULL) ^ network.mac_mask
            out.member = find_member(network, address)
            if out.member == NULL or now >= out.member.push_due_ms:
                address = 0
        else:
            address = find_bridge(network, dest)
            out.member = find_member(network, address) if address else NULL
            out.extended = out.foreign = True
        out.peer = find_peer(core, address) if address else NULL
        if out.peer != NULL:
            out.path = path_at(core, out.peer.route)
            out.mirror = path_at(core, out.peer.mirror)
            if out.path != NULL:
                return True
    punt_frames(plane, lane, burst.nwid, cut)
    return False


cdef void punt_frames(Plane *plane, zt_lane *lane, uint64_t nwid, zt_cut *cut) noexcept nogil:
    cdef uint8_t[HEADERS_ROOM] headers
    cdef iovec[2] pieces
    cdef const uint8_t *payload
    cdef uint32_t i
    for i in range(cut.count):
        pieces[1].iov_len = zt_cut_next(cut, headers, &payload)
        pieces[1].iov_base = <void *>payload
        pieces[0].iov_base = headers
        pieces[0].iov_len = cut.headers
        punt(plane, lane, KIND_FRAME, NULL, 0, nwid, 0, pieces, 2)


cdef void send_all(
    Plane *plane, zt_lane *lane, const uint8_t *frame, uint32_t size, zt_cut *cut, Outbound *out, int64_t now
) noexcept nogil:
    """A burst with one verdict."""
    cdef zt_frame judged
    cdef zt_verdict verdict
    cdef Network *network = out.network
    cdef const zt_credentials *credentials = NULL
    if out.member != NULL:
        credentials = out.member.credentials
    if network.program != NULL:
        judged.payload = frame + ETHERNET
        judged.length = size - ETHERNET
        judged.ethertype = <uint16_t>(frame[12] << 8 | frame[13])
        judged.vlan = 0
        judged.dest_mac = load48(frame)
        judged.source_mac = load48(frame + 6)
        judged.source = plane.core.address
        judged.dest = 0 if out.foreign else out.peer.address
        if out.foreign:
            credentials = NULL
        zt_filter_outbound(
            network.program, credentials, &judged, False, &lane.filter_random, &verdict, NULL
        )
        if out.foreign and verdict.result and not verdict.copies:
            # First whether it may leave at all, then whether this bridge may have it (10.3).
            judged.dest = out.peer.address
            if out.member != NULL:
                credentials = out.member.credentials
            zt_filter_outbound(
                network.program, credentials, &judged, True, &lane.filter_random, &verdict, NULL
            )
        if verdict.copies:
            punt_frames(plane, lane, network.nwid, cut)
            return
        if verdict.result == 0:
            shared_count(&lane.counters.drop_filter, cut.count)
            if verdict.reason != ZT_DROPPED:
                shared_add(&network.judged[<int>OUT_DROPPED], cut.count)
            return
    shared_add(&network.judged[<int>OUT_ACCEPTED], cut.count)
    emit(plane, lane, cut, out, now)


cdef void send_each(Plane *plane, zt_lane *lane, zt_cut *cut, Outbound *out, int64_t now) noexcept nogil:
    """A burst whose segments the rules may tell apart: each becomes a frame of its own first."""
    cdef zt_vnet nothing
    cdef zt_cut single
    cdef uint8_t *frame
    cdef const uint8_t *payload
    cdef uint32_t i, size
    memset(&nothing, 0, sizeof(zt_vnet))
    for i in range(cut.count):
        if not zt_lane_has_room(lane):
            return
        frame = zt_lane_space(lane, zt_cut_size(cut))
        size = zt_cut_next(cut, frame, &payload)
        memcpy(frame + cut.headers, payload, size)
        size += cut.headers
        if zt_cut_begin(&single, &nothing, frame, size):
            send_all(plane, lane, frame, size, &single, out, now)


cdef void emit(Plane *plane, zt_lane *lane, zt_cut *cut, Outbound *out, int64_t now) noexcept nogil:
    """Cuts, seals and splits. The headers of each frame are written behind the place of the packet's
    own, the MACs give way to the fields of FRAME (chapter 04, 9.1) or go along in an EXT_FRAME, and
    sealing reads the payload from the TAP's buffer."""
    cdef uint8_t[ZT_HEAD + HEADERS_ROOM] head
    cdef uint8_t *ethernet = head + ZT_HEAD
    cdef iovec[2] body
    cdef Peer *peer = out.peer
    cdef Path *path = out.path
    cdef uint32_t mtu = path.mtu if out.mirror == NULL else min(path.mtu, out.mirror.mtu)
    cdef uint8_t *start
    cdef uint8_t *packet
    cdef const uint8_t *payload
    cdef uint32_t i, n, first, count, payload_size
    cdef uint64_t id
    # verb, nwid | flags, MACs for EXT_FRAME | ethertype and the rest of the frame's headers
    start = ethernet - 10 if out.extended else ethernet + 3
    for i in range(cut.count):
        if zt_cut_size(cut) > out.network.mtu + ETHERNET:
            shared_count(&lane.counters.drop_size, cut.count - i)
            break
        payload_size = zt_cut_next(cut, ethernet, &payload)
        start[0] = VERB_EXT_FRAME if out.extended else VERB_FRAME
        store64_be(start + 1, out.network.nwid)
        if out.extended:
            start[9] = 0
        body[0].iov_base = start
        body[0].iov_len = ethernet + cut.headers - start
        body[1].iov_base = <void *>payload
        body[1].iov_len = payload_size
        n = ZT_BODY + <uint32_t>body[0].iov_len + payload_size
        if n > PACKET_MAX:
            shared_count(&lane.counters.drop_size, cut.count - i)
            break
        first = piece_size(n, mtu, zt_lane_fit(lane, peer.route, 0, 0))
        count = 1 if first == n else 1 + (n - first + first - FRAGMENT_HEADER - 1) // (first - FRAGMENT_HEADER)
        # A packet's pieces stay in one run: so they arrive together.
        first = piece_size(n, mtu, zt_lane_fit(lane, peer.route, n + FRAGMENT_HEADER * (count - 1), count))
        packet = zt_lane_space(lane, n + FRAGMENT_HEADER * (MAX_PIECES - 1))
        id = zt_lane_id(lane)
        memcpy(packet, &id, 8)
        store40(packet + 8, peer.address)
        store40(packet + 13, plane.core.address)
        packet[18] = FRAGMENTED if count > 1 else 0
        if path.trusted_id:
            packet[18] |= SUITE_TRUSTED << 3
            store64_be(packet + 19, path.trusted_id)
            memcpy(packet + ZT_BODY, body[0].iov_base, body[0].iov_len)
            memcpy(packet + ZT_BODY + body[0].iov_len, payload, payload_size)
        else:
            zt_seal_iov(peer.key, packet, peer.suite, body, 2)
        send_pieces(lane, &path.place, peer.route, packet, n, first)
        if out.mirror != NULL:
            send_pieces(lane, &out.mirror.place, peer.mirror, packet, n, first)
        shared_count(&lane.counters.ext_frames_out, out.extended)
    shared_add(&peer.packets_out, cut.count)
    shared_store(&path.last_out, now)
    if out.mirror != NULL:
        shared_store(&out.mirror.last_out, now)


cdef void send_pieces(
    zt_lane *lane, const Place *place, int64_t path, uint8_t *packet, uint32_t n, uint32_t first
) noexcept nogil:
    """The datagrams of a sealed packet: a head of `first` bytes, and fragments of that size, whose
    headers are kept behind the packet (chapter 02, 2.4)."""
    cdef uint8_t *header = packet + n
    cdef uint32_t total, number, at, size
    zt_lane_send(lane, place, path, packet, first, NULL, 0)
    if first == n:
        return
    total = 1 + (n - first + first - FRAGMENT_HEADER - 1) // (first - FRAGMENT_HEADER)
    at = first
    for number in range(1, total):
        memcpy(header, packet, 13)
        header[13] = FRAGMENT_MARK
        header[14] = <uint8_t>(total << 4 | number)
        header[15] = 0
        size = min(first - FRAGMENT_HEADER, n - at)
        zt_lane_send(lane, place, path, header, FRAGMENT_HEADER, packet + at, size)
        header += FRAGMENT_HEADER
        at += size


cdef void switch_hand_over(Plane *plane, zt_lane *lane) noexcept nogil:
    """Punts the datagrams for sockets without a descriptor and takes them off the lane."""
    cdef Origin where
    cdef iovec[2] pieces
    cdef zt_out *out
    cdef zt_datagram *datagram
    cdef uint32_t i, at
    for i in range(lane.out_count):
        out = &lane.outs[i]
        if out.place.socket >= 0:
            continue
        where.place = out.place
        where.path = out.path
        at = out.first
        while at != LANE_END:
            datagram = &lane.datagrams[at]
            pieces[0].iov_base = <void *>datagram.head
            pieces[0].iov_len = datagram.head_size
            pieces[1].iov_base = <void *>datagram.tail
            pieces[1].iov_len = datagram.tail_size
            punt(plane, lane, KIND_SEND, &where, 0, 0, 0, pieces, 2)
            at = datagram.next
        out.count = 0


# ---- for Python --------------------------------------------------------------------------------


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
    cdef Record *record
    result = []
    try:
        while at < used:
            record = <Record *>(data + at)
            at += sizeof(Record)
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


cdef dict lane_counters(const zt_lane_counters *c):
    return {
        "datagrams_in": c.datagrams_in, "bytes_in": c.bytes_in,
        "datagrams_out": c.datagrams_out, "bytes_out": c.bytes_out,
        "frames_in": c.frames_in, "frames_out": c.frames_out,
        "ext_frames_in": c.ext_frames_in, "ext_frames_out": c.ext_frames_out,
        "relayed": c.relayed, "punts": c.punts,
        "drop_malformed": c.drop_malformed, "drop_self": c.drop_self, "drop_hops": c.drop_hops,
        "drop_relay": c.drop_relay, "drop_armor": c.drop_armor, "drop_network": c.drop_network,
        "drop_mac": c.drop_mac, "drop_size": c.drop_size, "drop_filter": c.drop_filter,
    }  # fmt: skip


cdef class Switch:
    """The switch of one node over its tables.

    The methods take one datagram or frame at a time, for tests, the simulator and the control
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
        self.seed = seed
        self.datagrams = []
        self.frames = []

    def __dealloc__(self):
        ring_free(&self.plane.ring)
        zt_queue_free(&self.plane.punts)
        pthread_mutex_destroy(&self.plane.lock)
        free(self.plane.introductions)
        if self.lane.arena != NULL:
            zt_lane_free(&self.lane)

    cdef zt_lane *own_lane(self) except NULL:
        cdef bytes seed
        if self.lane.arena == NULL:
            seed = self.seed if self.seed is not None else os.urandom(32)
            if zt_lane_init(&self.lane, OWN_ARENA, 64, 4, <const uint8_t *>seed):
                raise MemoryError
        return &self.lane

    def datagram(self, int socket, bytes ip not None, int port, bytes data not None, int64_t now_ms):
        """A datagram received on a local socket. ValueError: no address or port."""
        cdef zt_lane *lane = self.own_lane()
        cdef bytearray copy = bytearray(data) or bytearray(1)  # relaying writes into it
        cdef uint8_t[::1] view = copy
        cdef Received batch
        cdef Cursor at
        memset(&at, 0, sizeof(Cursor))
        make_place(&batch.place, socket, ip, port)
        batch.data = &view[0]
        batch.size = batch.segment = <uint32_t>len(data)
        if not batch.size:
            return
        self.run(lane, &batch, NULL, &at, now_ms)

    def frame(self, uint64_t nwid, bytes frame not None, int64_t now_ms):
        """A whole Ethernet frame from the network's TAP."""
        cdef zt_lane *lane = self.own_lane()
        cdef bytearray copy = bytearray(frame) or bytearray(1)
        cdef uint8_t[::1] view = copy
        cdef Burst batch
        cdef Cursor at
        memset(&batch, 0, sizeof(Burst))
        memset(&at, 0, sizeof(Cursor))
        batch.nwid = nwid
        batch.data = &view[0]
        batch.size = <uint32_t>len(frame)
        self.run(lane, NULL, &batch, &at, now_ms)

    cdef int run(
        self, zt_lane *lane, const Received *received, const Burst *burst, Cursor *at, int64_t now
    ) except -1:
        cdef bint done = False
        while not done:
            pthread_rwlock_rdlock(&self.tables.core.lock)
            if received != NULL:
                done = switch_receive(&self.plane, lane, received, 1, at, now)
            else:
                done = switch_transmit(&self.plane, lane, burst, 1, at, now)
            pthread_rwlock_unlock(&self.tables.core.lock)
            self.collect()
        return 0

    def packet(self, int socket, bytes ip not None, int port, bytes packet not None, int64_t now_ms):
        """An opened FRAME or EXT_FRAME once more, after the gate opened. False: still refused (or
        it needs the control plane for another reason, or its peer is gone)."""
        cdef zt_lane *lane = self.own_lane()
        cdef uint8_t *space
        cdef Peer *peer
        cdef uint32_t n = <uint32_t>len(packet)
        cdef bint done
        if not ZT_PACKET_MIN <= n <= PACKET_MAX:
            raise ValueError("a packet has 28 to 10024 bytes")
        if packet[ZT_BODY] & (COMPRESSED | VERB_MASK) not in (VERB_FRAME, VERB_EXT_FRAME):
            raise ValueError("neither FRAME nor EXT_FRAME, or still compressed")
        space = zt_lane_space(lane, HEADROOM + n) + HEADROOM
        memcpy(space, <const uint8_t *>packet, n)
        pthread_rwlock_rdlock(&self.tables.core.lock)
        peer = find_peer(&self.tables.core, load40(space + 13))
        done = peer != NULL and deliver(&self.plane, lane, peer, space, n) != FRAME_PUNT
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

    def counters(self):
        """Of these methods, not of a Pump's threads; `punts_lost` of both."""
        result = lane_counters(&self.lane.counters)
        result["punts_lost"] = self.plane.punts.dropped
        return result
