# cython: cdivision=True
"""One multicast frame to many members with one call (ch. 04, 12.4).

The control plane chose the members. What the data plane knows about each decides: one that is in
the tables, with a route and no credentials due, is judged by the rules and gets its sealed copy; the
others are handed back.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from zt._fast.cipher cimport iovec, zt_seal_end, zt_seal_next, zt_sealing
from zt._fast.filter cimport (
    ZT_ACCEPTED, ZT_UNMATCHED, zt_filter_outbound, zt_frame, zt_verdict
)
from zt._fast.fragment cimport MAX_PIECES, piece_size
from zt._fast.outbound cimport send_pieces
from zt._fast.plane cimport (
    FLAG_FRAGMENTED, FRAGMENT_DATA, WIRE_DESTINATION, WIRE_FLAGS, WIRE_PACKET_MAX, WIRE_SOURCE,
    WIRE_VERB, Plane, store40, zt_lane, zt_lane_has_room, zt_lane_id, zt_lane_space,
)
from zt._fast.switch cimport Switch
from zt._fast.tables cimport (
    OUT_ACCEPTED, OUT_DROPPED, Core, Member, Network, Path, Peer, find_member, find_network, find_peer,
    path_at, pthread_rwlock_rdlock, pthread_rwlock_unlock, shared_add, shared_store,
)

cdef enum Outcome:
    SENT
    REFUSED        # by the rules, without a copy to anybody
    LEFT           # the control plane's


# What is sent, to whom, and how it went.
cdef struct Copies:
    uint64_t nwid
    const uint64_t *members
    uint32_t count
    uint8_t *outcomes      # one per member
    uint64_t *ids          # of the packets sent, as on the wire, in native order of the 8 bytes
    zt_frame frame         # what the rules judge
    iovec body             # verb byte and payload of the packet


cdef uint32_t fill(Plane *plane, zt_lane *lane, Copies *copies, uint32_t at, int64_t now) noexcept nogil:
    """Copies from member `at` on, until the lane is full or all are done; where it stopped. The
    caller holds the read lock."""
    cdef Network *network = find_network(plane.core, copies.nwid)
    cdef zt_frame frame = copies.frame
    cdef zt_sealing sealing
    memset(&sealing, 0, sizeof(zt_sealing))
    frame.source = plane.core.address
    while at < copies.count and zt_lane_has_room(lane):
        copies.outcomes[at] = LEFT
        if network != NULL:
            frame.dest = copies.members[at]
            copies.outcomes[at] = copy(
                plane, lane, network, &frame, &sealing, &copies.body, &copies.ids[at], now
            )
        at += 1
    zt_seal_end(&sealing)
    return at


cdef Outcome copy(
    Plane *plane, zt_lane *lane, Network *network, const zt_frame *frame, zt_sealing *sealing,
    const iovec *body, uint64_t *id, int64_t now,
) noexcept nogil:
    """The copy for one member. Its body may stay to be encrypted with the next one's tag."""
    cdef Core *core = plane.core
    cdef Member *member = find_member(network, frame.dest)
    cdef Peer *peer
    cdef Path *path
    cdef Path *mirror
    cdef zt_verdict verdict
    cdef uint8_t *packet
    cdef uint32_t n = WIRE_VERB + <uint32_t> body.iov_len
    cdef uint32_t mtu, first
    if member == NULL or now >= member.push_due_ms or network.program == NULL:
        return LEFT
    peer = find_peer(core, frame.dest)
    path = path_at(core, peer.route) if peer != NULL else NULL
    if path == NULL or path.trusted_id:
        return LEFT
    zt_filter_outbound(
        network.program, member.credentials, frame, True, &lane.filter_random, &verdict, NULL
    )
    if verdict.copies:
        return LEFT
    if not verdict.result:
        if verdict.reason == ZT_UNMATCHED:
            shared_add(&network.judged[<int> OUT_DROPPED], 1)
        return REFUSED
    shared_add(&network.judged[<int> OUT_ACCEPTED], 1)
    mirror = path_at(core, peer.mirror)
    mtu = path.mtu if mirror == NULL else min(path.mtu, mirror.mtu)
    first = piece_size(n, mtu, 0)
    packet = zt_lane_space(lane, n + FRAGMENT_DATA * (MAX_PIECES - 1))
    id[0] = zt_lane_id(lane)
    memcpy(packet, id, 8)
    store40(packet + WIRE_DESTINATION, peer.address)
    store40(packet + WIRE_SOURCE, core.address)
    packet[WIRE_FLAGS] = FLAG_FRAGMENTED if first < n else 0
    zt_seal_next(sealing, peer.key, packet, peer.suite, body, 1)
    memcpy(id, packet, 8)  # sealing may have chosen another one
    send_pieces(lane, &path.place, peer.route, packet, n, first)
    shared_store(&path.last_out, now)
    if mirror != NULL:
        send_pieces(lane, &mirror.place, peer.mirror, packet, n, first)
        shared_store(&mirror.last_out, now)
    shared_add(&peer.packets_out, 1)
    return SENT


def replicate(
    Switch switch not None, uint64_t nwid, members, uint64_t dest_mac, uint64_t source_mac,
    uint16_t ethertype, const uint8_t[::1] payload not None, const uint8_t[::1] body not None,
    int64_t now_ms,
):
    """Sends one packet to many members of a network.

    The frame is what the rules judge, with each member as its destination; `body` is what each is
    sent: verb byte, compressed flag included, and payload. Returns the members that are left to the
    caller (not in the tables, no route, credentials due, rules that copy or redirect) and the IDs
    of the packets sent. The datagrams leave as those of other methods of the switch do.
    ValueError: the body does not fit a packet."""
    cdef zt_lane *lane = &switch.lane
    cdef Plane *plane = &switch.plane
    cdef Copies copies
    cdef uint8_t nothing = 0
    cdef uint32_t at = 0, i, count = <uint32_t> len(members)
    cdef uint64_t *addresses
    if not 0 < body.shape[0] <= WIRE_PACKET_MAX - WIRE_VERB:
        raise ValueError("a body has 1 to 9997 bytes")
    if count == 0:
        return [], []
    addresses = <uint64_t *> malloc(count * (2 * sizeof(uint64_t) + 1))
    if addresses == NULL:
        raise MemoryError
    try:
        for i in range(count):
            addresses[i] = members[i]
        copies.nwid = nwid
        copies.members = addresses
        copies.count = count
        copies.ids = addresses + count
        copies.outcomes = <uint8_t *> (addresses + 2 * count)
        copies.frame.payload = &payload[0] if payload.shape[0] else &nothing
        copies.frame.length = <uint32_t> payload.shape[0]
        copies.frame.ethertype = ethertype
        copies.frame.vlan = 0
        copies.frame.dest_mac = dest_mac
        copies.frame.source_mac = source_mac
        copies.body.iov_base = <void *> &body[0]
        copies.body.iov_len = body.shape[0]
        while at < count:
            pthread_rwlock_rdlock(&switch.tables.core.lock)
            at = fill(plane, lane, &copies, at, now_ms)
            pthread_rwlock_unlock(&switch.tables.core.lock)
            switch.collect()
        left, ids = [], []
        for i in range(count):
            if copies.outcomes[i] == LEFT:
                left.append(addresses[i])
            elif copies.outcomes[i] == SENT:
                ids.append(int.from_bytes((<const uint8_t *> &copies.ids[i])[:8], "big"))
        return left, ids
    finally:
        free(addresses)
