# cython: cdivision=True
"""Datagram to frame: the receiving half of the switch (switch.pyx draws the pipeline)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc
from libc.string cimport memcpy, memset

from zt._fast.cipher cimport iovec, zt_open_iov, zt_seal_iov
from zt._fast.drops cimport (
    ARMOR, BRIDGE, FILTER, HOPS, MALFORMED, NETWORK, RELAY, REPEAT, SELF, SIZE, SOURCE_MAC, tell_drop
)
from zt._fast.filter cimport ZT_DROPPED, zt_filter_inbound, zt_frame, zt_verdict
from zt._fast.fragment cimport MAX_PIECES, pthread_mutex_t, ring_add
from zt._fast.offload cimport ETHERNET, zt_tap_frame
from zt._fast.plane cimport (
    EXT_ACKNOWLEDGE, EXT_COM, EXT_FRAME_FLAGS, EXT_FRAME_PAYLOAD, FLAG_FRAGMENTED, FLAG_LAYERED,
    VERB_ACK, VERB_QOS,
    FRAGMENT_DATA, FRAGMENT_HOPS, FRAGMENT_MARK, FRAGMENT_TOTAL, FRAME_PAYLOAD, HOPS_LIMIT, HOPS_MASK,
    LANE_HEADROOM, PUNT_HELLO, PUNT_INTRODUCE, PUNT_PACKET, PUNT_RECEIVED, PUNT_RELAY, PUNT_TRUSTED,
    PUNT_UNKNOWN, SUITE_TRUSTED, VERB_COMPRESSED, VERB_EXT_FRAME, VERB_FRAME, VERB_HELLO, VERB_MASK,
    VERB_MULTICAST_FRAME, WIRE_DESTINATION, WIRE_FLAGS, WIRE_MAC, WIRE_PACKET_MAX, WIRE_PACKET_MIN, WIRE_PAYLOAD,
    WIRE_SOURCE, WIRE_VERB, Introduction, load40, load48, load64_be, same_packet, store48,
    zt_lane_has_room, zt_lane_id, zt_lane_send, zt_lane_space, zt_punt, zt_queue_put,
)
from zt._fast.tables cimport (
    IN_ACCEPTED, IN_DROPPED, NO_PATH, Core, Member, Network, Path, PeerPath, Place, find_bridge,
    BOND_NO_SLOT, GREETING_OK_MAX, bond_flow, bond_heard, bond_slot, find_member, find_network, find_path, find_peer,
    find_peer_path, mac_of, path_at, samples_note, shared_add, shared_claim, shared_count, shared_load,
    shared_store, window_repeats, zt_greeting_ok, zt_greeting_repeats, zt_greeting_take,
)


cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)


cdef enum:
    BEACON = 13            # bytes of a legacy LAN beacon (chapter 02, 9.24)
    INTRODUCE_MS = 10000
    NOTICE_MS = 1000
    INTRODUCTIONS = 4096
    INTRODUCTION_WAYS = 8
    # Of packets that no key vouches for the control plane sees so many at once, and one more every
    # STRANGER_US: they cost it some 10 us each, and a flood of them must not keep it busy.
    STRANGERS = 4096
    STRANGER_US = 2000
    ALLOW_HELLO = 0
    ALLOW_UNKNOWN = 1


# Where a packet came from.
cdef struct Origin:
    Place place
    int64_t path     # its handle, or NO_PATH


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
            punt_bytes(plane, lane, PUNT_UNKNOWN, &origin, 0, 0, p, n)
        elif n <= FRAGMENT_DATA or (p[WIRE_SOURCE] != FRAGMENT_MARK and n < <uint32_t>WIRE_PACKET_MIN):
            shared_count(&lane.counters.drop_malformed, 1)
            tell_drop(plane, MALFORMED, &origin.place, 0, 0, NULL, 0, p, n)
        elif load40(p + WIRE_DESTINATION) != core.address:
            relay(plane, lane, &origin, p, n, now)
        elif p[WIRE_SOURCE] == FRAGMENT_MARK:
            piece(plane, lane, &origin, p, n, now)
        elif p[WIRE_FLAGS] & FLAG_FRAGMENTED:
            head(plane, lane, &origin, p, n, batch, count, at, now)
        else:
            whole(plane, lane, &origin, p, p + WIRE_VERB, n - WIRE_VERB, NULL, 0, now)
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
    cdef bint fragment = p[WIRE_SOURCE] == FRAGMENT_MARK
    cdef uint8_t hops = p[FRAGMENT_HOPS] if fragment else p[WIRE_FLAGS] & HOPS_MASK
    cdef uint64_t source = 0 if fragment else load40(p + WIRE_SOURCE)
    cdef uint64_t destination = load40(p + WIRE_DESTINATION)
    cdef Peer *peer
    cdef Path *path
    cdef int64_t route
    path = path_at(core, origin.path)
    if not core.relaying and (path == NULL or shared_load(&path.relay_until) <= now):
        shared_count(&lane.counters.drop_relay, 1)
        tell_drop(plane, RELAY, &origin.place, source, 0, NULL, 0, p, n)
        return
    if source == core.address:
        shared_count(&lane.counters.drop_self, 1)
        tell_drop(plane, SELF, &origin.place, source, 0, NULL, 0, p, n)
        return
    if hops >= HOPS_LIMIT:
        shared_count(&lane.counters.drop_hops, 1)
        tell_drop(plane, HOPS, &origin.place, source, 0, NULL, 0, p, n)
        return
    peer = find_peer(core, destination)
    route = NO_PATH if peer == NULL else peer.route
    path = path_at(core, route)
    if path == NULL:
        route = core.upstream
        path = path_at(core, route)
    if path == NULL:
        punt_bytes(plane, lane, PUNT_RELAY, origin, source, hops, p, n)
        return
    if route == origin.path:  # back to where it came from helps nobody
        shared_count(&lane.counters.drop_relay, 1)
        tell_drop(plane, RELAY, &origin.place, source, 0, NULL, 0, p, n)
        return
    if fragment:
        p[FRAGMENT_HOPS] = (hops + 1) & HOPS_MASK
    else:
        p[WIRE_FLAGS] = (p[WIRE_FLAGS] & ~HOPS_MASK) | (hops + 1)
        introduce(plane, lane, origin, source, p, now)
    shared_store(&path.last_out, now)
    shared_count(&lane.counters.relayed, 1)
    zt_lane_send(lane, &path.place, route, p, n, NULL, 0)


cdef void introduce(
    Plane *plane, zt_lane *lane, const Origin *origin, uint64_t source, const uint8_t *p, int64_t now
) noexcept nogil:
    """Notice for the control plane, at most once per 10 s and pair. The pairs are remembered in a
    small table; while it is full of fresher ones a new pair waits for its notice."""
    cdef uint64_t destination = load40(p + WIRE_DESTINATION)
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
        punt_bytes(plane, lane, PUNT_INTRODUCE, origin, source, 0, p + WIRE_DESTINATION, 5)


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
        if m <= FRAGMENT_DATA or q[WIRE_SOURCE] != FRAGMENT_MARK or not same_packet(p, q):
            break
        if number == 1:
            total = q[FRAGMENT_TOTAL] >> 4
            if not 2 <= total <= MAX_PIECES:
                break
        if q[FRAGMENT_TOTAL] != (total << 4 | number):
            break
        rest[number - 1].iov_base = <void *>(q + FRAGMENT_DATA)
        rest[number - 1].iov_len = m - FRAGMENT_DATA
        size += m - FRAGMENT_DATA
        number += 1
        if number == total:
            shared_count(&lane.counters.datagrams_in, total - 1)
            shared_count(&lane.counters.bytes_in, size - n + (total - 1) * FRAGMENT_DATA)
            at[0] = ahead
            if size > WIRE_PACKET_MAX:
                shared_count(&lane.counters.drop_malformed, 1)
                tell_drop(plane, MALFORMED, &origin.place, load40(p + WIRE_SOURCE), 0, NULL, 0, p, n)
            else:
                whole(plane, lane, origin, p, p + WIRE_VERB, n - WIRE_VERB, rest, total - 1, now)
            return
    keep(plane, lane, origin, p, 0, 0, p, n, now)


cdef void piece(
    Plane *plane, zt_lane *lane, const Origin *origin, const uint8_t *p, uint32_t n, int64_t now
) noexcept nogil:
    cdef uint32_t number = p[FRAGMENT_TOTAL] & 15
    if number == 0:
        shared_count(&lane.counters.drop_malformed, 1)
        tell_drop(plane, MALFORMED, &origin.place, 0, 0, NULL, 0, p, n)
        return
    keep(plane, lane, origin, p, number, p[FRAGMENT_TOTAL] >> 4, p + FRAGMENT_DATA, n - FRAGMENT_DATA, now)


cdef void keep(
    Plane *plane, zt_lane *lane, const Origin *origin, const uint8_t *p, uint32_t number, uint32_t total,
    const uint8_t *data, uint32_t size, int64_t now,
) noexcept nogil:
    """Stores a piece in the ring, and handles the packet that it completes."""
    cdef Origin first = origin[0]
    cdef uint8_t *packet = zt_lane_space(lane, WIRE_PACKET_MAX)
    cdef uint64_t id
    memcpy(&id, p, 8)
    size = ring_add(&plane.ring, id, number, total, data, size, &first.place, packet)
    if size < <uint32_t>WIRE_PACKET_MIN:
        lane.arena_used -= (WIRE_PACKET_MAX + 63) & ~63
        return
    first.path = find_path(plane.core, &first.place)
    if zt_lane_has_room(lane):
        whole(plane, lane, &first, packet, packet + WIRE_VERB, size - WIRE_VERB, NULL, 0, now)


cdef void whole(
    Plane *plane, zt_lane *lane, const Origin *origin, const uint8_t *p, const uint8_t *body, uint32_t size,
    const iovec *rest, int count, int64_t now,
) noexcept nogil:
    """A complete packet for us, still armored: header at p, body in one or more pieces."""
    cdef iovec[MAX_PIECES + 1] pieces
    cdef Core *core = plane.core
    cdef uint64_t source = load40(p + WIRE_SOURCE)
    cdef uint8_t suite = p[WIRE_FLAGS] >> 3 & 7
    cdef uint8_t hops = p[WIRE_FLAGS] & HOPS_MASK
    cdef uint32_t n = WIRE_VERB + size
    cdef Peer *peer
    cdef Path *path
    cdef uint8_t *packet
    cdef uint64_t trusted
    cdef uint32_t used
    cdef bint away
    cdef int i
    if source == core.address:
        shared_count(&lane.counters.drop_self, 1)
        tell_drop(plane, SELF, &origin.place, source, 0, NULL, 0, p, WIRE_VERB + size)
        return
    pieces[0].iov_base = <void *>p  # the header, and body up to the end of the first datagram
    pieces[0].iov_len = WIRE_VERB + size
    for i in range(count):
        pieces[i + 1] = rest[i]
        n += <uint32_t>rest[i].iov_len
    if suite == SUITE_TRUSTED:
        path = path_at(core, origin.path)
        trusted = load64_be(p + WIRE_MAC)
        if path == NULL:
            # Only the control plane knows whether such a path would be trusted.
            punt(plane, lane, PUNT_UNKNOWN, origin, source, hops, pieces, count + 1)
        elif trusted == 0 or path.trusted_id != trusted:
            shared_count(&lane.counters.drop_armor, 1)
            tell_drop(plane, ARMOR, &origin.place, source, 0, NULL, 0, p, WIRE_VERB)
        else:
            shared_store(&path.last_in, now)
            punt(plane, lane, PUNT_TRUSTED, origin, source, hops, pieces, count + 1)
        return
    peer = find_peer(core, source)
    if suite == 0 and (p[WIRE_FLAGS] & FLAG_LAYERED or p[WIRE_VERB] & VERB_MASK == VERB_HELLO):
        away = peer == NULL and not p[WIRE_FLAGS] & FLAG_LAYERED and shared_load(&core.turning_away)
        used = lane.arena_used
        packet = NULL if peer == NULL else open_whole(lane, peer, p, body, size, pieces, count, n)
        if packet != NULL and not hops and greet(plane, lane, origin, peer, packet, n, now):
            return
        lane.arena_used = used  # it was only to be checked
        if packet != NULL or (not away and allowed(plane, ALLOW_HELLO, now)):
            punt(plane, lane, PUNT_HELLO, origin, source, hops, pieces, count + 1)
        else:
            shared_count(&lane.counters.drop_stranger, 1)
    elif peer == NULL:
        if allowed(plane, ALLOW_UNKNOWN, now):
            punt(plane, lane, PUNT_UNKNOWN, origin, source, hops, pieces, count + 1)
        else:
            shared_count(&lane.counters.drop_stranger, 1)
    else:
        packet = open_whole(lane, peer, p, body, size, pieces, count, n)
        if packet != NULL:
            opened(plane, lane, origin, peer, packet, n, now)
        else:
            shared_count(&lane.counters.drop_armor, 1)
            shared_add(&peer.errors, 1)
            tell_drop(plane, ARMOR, &origin.place, source, 0, NULL, 0, p, WIRE_VERB)


cdef uint8_t *open_whole(
    zt_lane *lane, Peer *peer, const uint8_t *p, const uint8_t *body, uint32_t size, iovec *pieces, int count,
    uint32_t n,
) noexcept nogil:
    """The packet of `whole` in the clear, in the arena; NULL if it is not authentic. `pieces` has
    header and body in its first entry, and has them again afterwards."""
    cdef uint8_t *packet = zt_lane_space(lane, LANE_HEADROOM + n) + LANE_HEADROOM
    cdef iovec first = pieces[0]
    cdef bint authentic
    memcpy(packet, p, WIRE_VERB)
    pieces[0].iov_base = <void *>body
    pieces[0].iov_len = size
    authentic = zt_open_iov(peer.key, packet, pieces, count + 1)
    pieces[0] = first
    return packet if authentic else NULL


cdef bint greet(
    Plane *plane, zt_lane *lane, const Origin *origin, Peer *peer, uint8_t *hello, uint32_t n, int64_t now
) noexcept nogil:
    """Answers an authentic HELLO in the arena, if it says what the last one did that the control
    plane saw of this peer on this path."""
    cdef Core *core = plane.core
    cdef Path *path = path_at(core, origin.path)
    cdef PeerPath *direct = find_peer_path(peer, origin.path) if path != NULL else NULL
    cdef uint8_t *ok
    cdef uint32_t size
    cdef iovec body
    if not core.greeting or direct == NULL:
        return False
    if now >= direct.greeting.until or direct.greeting.era != core.greeting_era:
        return False
    if not zt_greeting_repeats(&direct.greeting, core.greeting_secret, peer.key, hello, n):
        return False
    if not zt_greeting_take(&direct.greeting, hello):
        return False
    ok = zt_lane_space(lane, GREETING_OK_MAX)
    size = <uint32_t>zt_greeting_ok(ok, hello, zt_lane_id(lane), &origin.place, core.version)
    body.iov_base = ok + WIRE_VERB
    body.iov_len = size - WIRE_VERB
    zt_seal_iov(peer.key, ok, peer.suite, &body, 1)
    shared_store(&peer.last_in, now)
    shared_store(&path.last_in, now)
    shared_store(&direct.last_in, now)
    shared_count(&lane.counters.greeted, 1)
    zt_lane_send(lane, &path.place, origin.path, ok, size, NULL, 0)
    return True


cdef bint allowed(Plane *plane, int kind, int64_t now) noexcept nogil:
    """Takes one from the allowance of packets that no key vouches for, if there is one."""
    cdef int64_t now_us = now * 1000
    cdef int64_t full
    cdef bint taken
    pthread_mutex_lock(&plane.lock)
    full = max(plane.allowances[kind], now_us)
    taken = full - now_us < STRANGERS * STRANGER_US
    if taken:
        plane.allowances[kind] = full + STRANGER_US
    pthread_mutex_unlock(&plane.lock)
    return taken


cdef void opened(
    Plane *plane, zt_lane *lane, const Origin *origin, Peer *peer, uint8_t *packet, uint32_t n, int64_t now
) noexcept nogil:
    """An authentic packet in the clear, in the arena."""
    cdef uint8_t verb = packet[WIRE_VERB]
    cdef uint8_t hops = packet[WIRE_FLAGS] & HOPS_MASK
    cdef Path *path = path_at(plane.core, origin.path)
    cdef PeerPath *direct = find_peer_path(peer, origin.path) if path != NULL else NULL
    cdef int64_t noticed
    cdef uint64_t id
    cdef int slot
    cdef Fate fate
    cdef uint8_t kind = verb & VERB_MASK
    shared_store(&peer.last_in, now)
    shared_add(&peer.packets_in, 1)
    if path != NULL:
        shared_store(&path.last_in, now)
    if direct != NULL and hops == 0:
        shared_store(&direct.last_in, now)
    if peer.bond != NULL and hops == 0:
        slot = bond_slot(peer.bond, origin.path)
        if slot != BOND_NO_SLOT and kind != VERB_ACK and kind != VERB_QOS:
            samples_note(&peer.bond.received[slot], load64_be(packet), now)
    if kind == VERB_FRAME or kind == VERB_EXT_FRAME or kind == VERB_MULTICAST_FRAME:
        memcpy(&id, packet, 8)
        if window_repeats(&peer.window, id):
            shared_count(&lane.counters.drop_repeat, 1)
            tell_drop(plane, REPEAT, &origin.place, peer.address, 0, NULL, 0, packet, n)
            return
    if not verb & VERB_COMPRESSED and (kind == VERB_FRAME or kind == VERB_EXT_FRAME):
        fate = deliver(plane, lane, &origin.place, peer, packet, n)
        if fate == FRAME_MEMBER:
            shared_store(&peer.last_frame, now)
            if peer.bond != NULL and peer.bond.flows != NULL and hops == 0:
                answer_there(peer, origin.path, kind == VERB_EXT_FRAME, packet, n, now)
            if direct == NULL or hops:
                noticed = shared_load(&peer.last_notice)
                if now - noticed >= NOTICE_MS and shared_claim(&peer.last_notice, noticed, now):
                    punt_bytes(plane, lane, PUNT_RECEIVED, origin, peer.address, hops, &kind, 1)
        if fate != FRAME_PUNT:
            return
    punt_bytes(plane, lane, PUNT_PACKET, origin, peer.address, hops, packet, n)


cdef void answer_there(
    Peer *peer, int64_t path, bint extended, const uint8_t *packet, uint32_t n, int64_t now
) noexcept nogil:
    """A delivered frame: if its flow is new, our packets of it take the path that it came on
    (chapter 03, 9.5)."""
    cdef uint32_t start = EXT_FRAME_PAYLOAD if extended else FRAME_PAYLOAD
    cdef uint16_t ethertype
    if n > start:
        ethertype = <uint16_t>(packet[start - 2] << 8 | packet[start - 1])
        bond_heard(peer.bond, bond_flow(packet + start, n - start, ethertype), path, now)


cdef Fate deliver(
    Plane *plane, zt_lane *lane, const Place *place, Peer *peer, uint8_t *packet, uint32_t n
) noexcept nogil:
    """A FRAME or EXT_FRAME on its way to the TAP (chapter 04, 11.1 and 11.2). The Ethernet header
    is put in front of the payload where the packet is. `place` is where it came from, or NULL."""
    cdef bint extended = packet[WIRE_VERB] & VERB_MASK == VERB_EXT_FRAME
    cdef uint32_t start = EXT_FRAME_PAYLOAD if extended else FRAME_PAYLOAD
    cdef Network *network
    cdef Member *member
    cdef zt_frame frame
    cdef zt_verdict verdict
    cdef zt_tap_frame *out
    cdef uint64_t own_mac
    if n < WIRE_PAYLOAD + 8 + extended:
        shared_count(&lane.counters.drop_malformed, 1)
        tell_drop(plane, MALFORMED, place, peer.address, 0, NULL, 0, packet, n)
        return FRAME_NOTHING
    network = find_network(plane.core, load64_be(packet + WIRE_PAYLOAD))
    if network == NULL:
        shared_count(&lane.counters.drop_network, 1)
        tell_drop(
            plane, NETWORK, place, peer.address, load64_be(packet + WIRE_PAYLOAD), NULL, 0, packet, n
        )
        return FRAME_NOTHING
    if extended and packet[EXT_FRAME_FLAGS] & (EXT_COM | EXT_ACKNOWLEDGE):
        return FRAME_PUNT
    member = find_member(network, peer.address)
    if member == NULL or not member.allowed:
        return FRAME_PUNT
    if n <= start:
        return FRAME_MEMBER  # no payload: nothing to deliver, and nothing wrong
    own_mac = mac_of(network, peer.address)
    frame.source_mac = load48(packet + 43) if extended else own_mac
    frame.dest_mac = load48(packet + 37) if extended else network.mac
    frame.ethertype = <uint16_t>(packet[start - 2] << 8 | packet[start - 1])
    if extended and (frame.source_mac == 0 or frame.source_mac == network.mac):
        shared_count(&lane.counters.drop_source_mac, 1)
        refused(plane, SOURCE_MAC, place, peer, network, &frame, packet + start, n - start)
        return FRAME_MEMBER
    verdict.result = 1
    if network.program != NULL:
        frame.payload = packet + start
        frame.length = n - start
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
                shared_count(&lane.counters.drop_bridge_in, 1)
                refused(plane, BRIDGE, place, peer, network, &frame, packet + start, n - start)
                return FRAME_MEMBER
    if verdict.result == 0:
        shared_count(&lane.counters.drop_filter_in, 1)
        if verdict.reason != ZT_DROPPED:
            shared_add(&network.judged[<int>IN_DROPPED], 1)
        refused(plane, FILTER, place, peer, network, &frame, packet + start, n - start)
        return FRAME_MEMBER
    shared_add(&network.judged[<int>IN_ACCEPTED], 1)
    if n - start > network.mtu:
        shared_count(&lane.counters.drop_size_in, 1)
        refused(plane, SIZE, place, peer, network, &frame, packet + start, n - start)
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


cdef void refused(
    Plane *plane, uint8_t reason, const Place *place, const Peer *peer, const Network *network,
    const zt_frame *frame, const uint8_t *payload, uint32_t size,
) noexcept nogil:
    """Tells of a frame that is dropped, as Ethernet has it."""
    cdef uint8_t[ETHERNET] header
    store48(header, frame.dest_mac)
    store48(header + 6, frame.source_mac)
    header[12] = <uint8_t>(frame.ethertype >> 8)
    header[13] = <uint8_t>frame.ethertype
    tell_drop(plane, reason, place, peer.address, network.nwid, header, ETHERNET, payload, size)


# ---- punts ----


cdef void punt(
    Plane *plane, zt_lane *lane, uint8_t kind, const Origin *origin, uint64_t address, uint8_t hops,
    const iovec *pieces, int count,
) noexcept nogil:
    cdef zt_punt record
    memset(&record, 0, sizeof(zt_punt))
    record.place = origin.place
    record.kind = kind
    record.address = address
    record.hops = hops
    if zt_queue_put(&plane.punts, &record, pieces, count):
        shared_count(&lane.counters.punts, 1)


cdef inline void punt_bytes(
    Plane *plane, zt_lane *lane, uint8_t kind, const Origin *origin, uint64_t address, uint8_t hops,
    const void *data, uint32_t size,
) noexcept nogil:
    cdef iovec piece
    piece.iov_base = <void *>data
    piece.iov_len = size
    punt(plane, lane, kind, origin, address, hops, &piece, 1)
