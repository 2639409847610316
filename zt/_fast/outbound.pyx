# cython: cdivision=True
"""Frame to datagrams: the sending half of the switch (switch.pyx draws the pipeline)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from zt._fast.cipher cimport iovec, zt_seal_end, zt_seal_next, zt_sealing
from zt._fast.drops cimport (
    BRIDGE, DROP_OUTBOUND, FILTER, MALFORMED, NETWORK, SIZE, tell_drop
)
from zt._fast.filter cimport ZT_DROPPED, zt_credentials, zt_filter_outbound, zt_frame, zt_verdict
from zt._fast.fragment cimport MAX_PIECES, piece_size
from zt._fast.offload cimport (
    ETHERNET, HEADERS_ROOM, zt_cut, zt_cut_begin, zt_cut_next, zt_cut_size, zt_vnet
)
from zt._fast.plane cimport (
    FLAG_FRAGMENTED, FRAGMENT_DATA, FRAGMENT_HOPS, FRAGMENT_MARK, FRAGMENT_TOTAL, LANE_END, PUNT_FRAME, PUNT_SEND,
    SUITE_TRUSTED, VERB_EXT_FRAME, VERB_FRAME, WIRE_DESTINATION, WIRE_FLAGS, WIRE_MAC,
    WIRE_PACKET_MAX, WIRE_SOURCE, WIRE_VERB, load48, load64_be, store40, store64_be, wire_pieces, zt_datagram, zt_lane_fit,
    zt_lane_has_room, zt_lane_has_room_for, zt_lane_id, zt_lane_send, zt_lane_space, zt_out, zt_punt,
    zt_queue_put,
)
from zt._fast.tables cimport (
    BOND_BROADCAST, BOND_NO_SLOT, OUT_ACCEPTED, OUT_DROPPED, Core, Member, Network, Path, Peer, Place,
    bond_flow, bond_pick, bond_slot, find_bridge, find_member, find_network, find_peer, path_at,
    samples_note, shared_add, shared_count, shared_store, zt_bond,
)


cdef enum:
    ETHERNET_AT = 16  # of a frame while its packet is built: EXT_FRAME fields go in front


# One burst on its way out: who it is for and how it is sent. What is sealed goes on from burst to
# burst.
cdef struct Outbound:
    zt_sealing sealing  # the batch's last packet, of which the body may not be encrypted yet
    uint8_t[2][ETHERNET_AT + HEADERS_ROOM] heads  # its first bytes, and those of the next
    int head
    Network *network
    Peer *peer
    int64_t route      # handle of `path`
    Path *path
    Path *mirror       # or NULL
    int slot           # of the path in the peer's bond, or BOND_NO_SLOT
    bint everywhere    # over every member of the bond
    Member *member     # or NULL
    bint extended      # EXT_FRAME: the MACs are not those of the two nodes
    bint foreign       # the destination lives behind the peer


cdef bint switch_transmit(
    Plane *plane, zt_lane *lane, const Burst *batch, uint32_t count, Cursor *at, int64_t now
) noexcept nogil:
    cdef zt_cut cut
    cdef Outbound out
    cdef const Burst *burst
    cdef uint32_t need, datagrams
    cdef bint done = True
    memset(&out.sealing, 0, sizeof(zt_sealing))
    out.head = 0
    while at.entry < count:
        burst = &batch[at.entry]
        if not zt_lane_has_room(lane):
            done = False
            break
        if not zt_cut_begin(&cut, &burst.vnet, burst.data, burst.size) or burst.size <= ETHERNET:
            shared_count(&lane.counters.drop_malformed, 1)
            refused(plane, MALFORMED, burst.nwid, 0, burst.data, burst.size)
            at.entry += 1
            continue
        if cut.count > 1:
            # Room for the whole burst (as packets, and once more as frames if each is judged), or
            # for none of it.
            need = 2 * burst.size + cut.count * (2 * cut.headers + 320)
            datagrams = cut.count * 2 * MAX_PIECES
            if need > lane.arena_room or datagrams > lane.datagram_room:
                shared_count(&lane.counters.drop_size_out, cut.count)
                refused(plane, SIZE, burst.nwid, 0, burst.data, burst.size)
                at.entry += 1
                continue
            if not zt_lane_has_room_for(lane, need, datagrams):
                done = False
                break
        shared_count(&lane.counters.frames_in, cut.count)
        if lookup(plane, lane, burst, &cut, &out, now):
            if cut.count > 1 and out.network.per_segment:
                send_each(plane, lane, &cut, &out, now)
            else:
                send_all(plane, lane, burst.data, burst.size, &cut, &out, now)
        at.entry += 1
    zt_seal_end(&out.sealing)
    return done


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
        refused(plane, NETWORK, burst.nwid, 0, burst.data, burst.size)
        return False
    dest = load48(burst.data)
    source = load48(burst.data + 6)
    bridged = source != network.mac
    if bridged and not network.bridge:
        shared_count(&lane.counters.drop_bridge_out, 1)
        refused(plane, BRIDGE, burst.nwid, 0, burst.data, burst.size)
        return False
    if zt_cut_size(cut) > network.mtu + ETHERNET:
        shared_count(&lane.counters.drop_size_out, cut.count)
        refused(plane, SIZE, burst.nwid, 0, burst.data, burst.size)
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
            out.route = out.peer.route
            out.path = path_at(core, out.route)
            out.mirror = path_at(core, out.peer.mirror)
            out.slot = BOND_NO_SLOT
            out.everywhere = False
            if out.peer.bond != NULL:
                spread(core, lane, burst, cut, out, now)
            if out.path != NULL:
                return True
    punt_frames(plane, lane, burst.nwid, cut)
    return False


cdef void spread(
    const Core *core, zt_lane *lane, const Burst *burst, const zt_cut *cut, Outbound *out, int64_t now
) noexcept nogil:
    """The path that a bond has for a burst (chapter 03, 9.5). A burst is of one flow and stays
    together."""
    cdef zt_bond *bond = out.peer.bond
    cdef const uint8_t *frame = burst.data
    cdef uint16_t flow = 0
    cdef uint64_t random = 0
    cdef Path *path
    cdef int slot
    if bond.policy == BOND_BROADCAST and bond.count > 1:
        out.everywhere = True
        out.mirror = NULL
    if bond.flows != NULL:
        flow = bond_flow(frame + ETHERNET, burst.size - ETHERNET, <uint16_t>(frame[12] << 8 | frame[13]))
        random = zt_lane_id(lane)
    slot = bond_pick(bond, flow, cut.count, random, now)
    path = path_at(core, bond.path[slot]) if slot != BOND_NO_SLOT else NULL
    if path != NULL:
        out.route = bond.path[slot]
        out.path = path
        out.mirror = NULL
    out.slot = bond_slot(bond, out.route)


cdef inline void refused(
    Plane *plane, uint8_t reason, uint64_t nwid, uint64_t address, const uint8_t *frame, uint32_t size
) noexcept nogil:
    """Tells of a frame of ours that is dropped; of a burst once, with the size of the whole."""
    tell_drop(plane, reason | DROP_OUTBOUND, NULL, address, nwid, NULL, 0, frame, size)


cdef void punt_frames(Plane *plane, zt_lane *lane, uint64_t nwid, zt_cut *cut) noexcept nogil:
    """Hands a burst to the control plane, frame by frame."""
    cdef uint8_t[HEADERS_ROOM] headers
    cdef iovec[2] pieces
    cdef zt_punt record
    cdef const uint8_t *payload
    memset(&record, 0, sizeof(zt_punt))
    record.kind = PUNT_FRAME
    record.nwid = nwid
    for _ in range(cut.count):
        pieces[1].iov_len = zt_cut_next(cut, headers, &payload)
        pieces[1].iov_base = <void *>payload
        pieces[0].iov_base = headers
        pieces[0].iov_len = cut.headers
        if zt_queue_put(&plane.punts, &record, pieces, 2):
            shared_count(&lane.counters.punts, 1)


cdef void send_all(
    Plane *plane, zt_lane *lane, const uint8_t *frame, uint32_t size, zt_cut *cut, Outbound *out, int64_t now
) noexcept nogil:
    """A burst with one verdict."""
    cdef zt_frame judged
    cdef zt_verdict verdict
    cdef Network *network = out.network
    cdef const zt_credentials *credentials = NULL
    cdef const zt_credentials *nobody = NULL
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
        zt_filter_outbound(
            network.program, nobody if out.foreign else credentials, &judged, False,
            &lane.filter_random, &verdict, NULL,
        )
        if out.foreign and verdict.result and not verdict.copies:
            # First whether it may leave at all, then whether this bridge may have it (10.3).
            judged.dest = out.peer.address
            zt_filter_outbound(
                network.program, credentials, &judged, True, &lane.filter_random, &verdict, NULL
            )
        if verdict.copies:
            punt_frames(plane, lane, network.nwid, cut)
            return
        if verdict.result == 0:
            shared_count(&lane.counters.drop_filter_out, cut.count)
            if verdict.reason != ZT_DROPPED:
                shared_add(&network.judged[<int>OUT_DROPPED], cut.count)
            refused(plane, FILTER, network.nwid, judged.dest, frame, size)
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
    """Cuts, seals and splits. The headers of each frame are written where its packet is to read
    them: the MACs give way to the fields of FRAME (chapter 04, 9.1) or go along in an EXT_FRAME.
    Sealing reads the payload from the TAP's buffer and writes the packet into the arena; for the
    last packet it does so when the next one is sealed, so there are two places for headers."""
    cdef uint8_t *ethernet
    # verb, network ID | flags, MACs of an EXT_FRAME | ethertype and the rest of the frame's headers
    cdef uint8_t *start
    cdef iovec[2] body
    cdef Peer *peer = out.peer
    cdef Path *path = out.path
    cdef uint32_t mtu = path.mtu if out.mirror == NULL else min(path.mtu, out.mirror.mtu)
    cdef bint trusted = path.trusted_id != 0 and not out.everywhere
    cdef const uint8_t *payload
    cdef uint8_t *packet
    cdef uint32_t i, n, piece
    cdef uint64_t id
    if out.everywhere:
        mtu = smallest_mtu(plane.core, out)
    for i in range(cut.count):
        ethernet = out.heads[out.head] + ETHERNET_AT
        start = ethernet - 10 if out.extended else ethernet + 3
        n = WIRE_VERB + <uint32_t>(ethernet - start) + zt_cut_size(cut)
        if n > WIRE_PACKET_MAX:
            shared_count(&lane.counters.drop_size_out, cut.count - i)
            refused(plane, SIZE, out.network.nwid, peer.address, NULL, 0)
            break
        body[1].iov_len = zt_cut_next(cut, ethernet, &payload)
        body[1].iov_base = <void *>payload
        body[0].iov_len = ethernet + cut.headers - start
        body[0].iov_base = start
        start[0] = VERB_EXT_FRAME if out.extended else VERB_FRAME
        store64_be(start + 1, out.network.nwid)
        if out.extended:
            start[9] = 0
        piece = piece_size(n, mtu, zt_lane_fit(lane, out.route, n))
        packet = zt_lane_space(lane, n + FRAGMENT_DATA * (MAX_PIECES - 1))
        id = zt_lane_id(lane)
        memcpy(packet, &id, 8)
        store40(packet + WIRE_DESTINATION, peer.address)
        store40(packet + WIRE_SOURCE, plane.core.address)
        packet[WIRE_FLAGS] = FLAG_FRAGMENTED if piece < n else 0
        if trusted:
            packet[WIRE_FLAGS] |= SUITE_TRUSTED << 3
            store64_be(packet + WIRE_MAC, path.trusted_id)
            memcpy(packet + WIRE_VERB, body[0].iov_base, body[0].iov_len)
            memcpy(packet + WIRE_VERB + body[0].iov_len, payload, body[1].iov_len)
        else:
            zt_seal_next(&out.sealing, peer.key, packet, peer.suite, body, 2)
            out.head ^= 1
        send_pieces(lane, &path.place, out.route, packet, n, piece)
        if out.mirror != NULL:
            send_pieces(lane, &out.mirror.place, peer.mirror, packet, n, piece)
        if out.everywhere:
            send_copies(plane.core, lane, out, packet, n, piece, cut.count - i, now)
        if out.slot != BOND_NO_SLOT:
            samples_note(&peer.bond.sent[out.slot], load64_be(packet), now)
        shared_count(&lane.counters.ext_frames_out, out.extended)
    shared_add(&peer.packets_out, cut.count)
    shared_store(&path.last_out, now)
    if out.mirror != NULL:
        shared_store(&out.mirror.last_out, now)


cdef uint32_t smallest_mtu(const Core *core, const Outbound *out) noexcept nogil:
    """Of all paths that a packet is sent over."""
    cdef const zt_bond *bond = out.peer.bond
    cdef const Path *path
    cdef uint32_t mtu = out.path.mtu
    cdef int i
    for i in range(bond.count):
        path = path_at(core, bond.path[bond.member[i]])
        if path != NULL:
            mtu = min(mtu, path.mtu)
    return mtu


cdef void send_copies(
    const Core *core, zt_lane *lane, const Outbound *out, uint8_t *packet, uint32_t n, uint32_t piece,
    uint32_t left, int64_t now,
) noexcept nogil:
    """A sealed packet over the other members of a broadcast bond, as far as there is room beside
    the first copies of the `left` packets of its burst that the caller made room for."""
    cdef const zt_bond *bond = out.peer.bond
    cdef Path *path
    cdef int i, slot
    for i in range(bond.count):
        slot = bond.member[i]
        path = path_at(core, bond.path[slot])
        if path == NULL or path == out.path:
            continue
        if not zt_lane_has_room_for(lane, 0, left * MAX_PIECES):
            return
        send_pieces(lane, &path.place, bond.path[slot], packet, n, piece)
        samples_note(&bond.sent[slot], load64_be(packet), now)
        shared_store(&path.last_out, now)


# Chapter 02, 2.4. The headers of the fragments are kept behind the packet.
cdef void send_pieces(
    zt_lane *lane, const Place *place, int64_t path, uint8_t *packet, uint32_t n, uint32_t piece
) noexcept nogil:
    cdef uint8_t *header = packet + n
    cdef uint32_t total = wire_pieces(n, piece)
    cdef uint32_t number, size, at = piece
    zt_lane_send(lane, place, path, packet, piece, NULL, 0)
    for number in range(1, total):
        memcpy(header, packet, WIRE_SOURCE)
        header[WIRE_SOURCE] = FRAGMENT_MARK
        header[FRAGMENT_TOTAL] = <uint8_t>(total << 4 | number)
        header[FRAGMENT_HOPS] = 0
        size = min(piece - FRAGMENT_DATA, n - at)
        zt_lane_send(lane, place, path, header, FRAGMENT_DATA, packet + at, size)
        header += FRAGMENT_DATA
        at += size


cdef void hand_over(Plane *plane, zt_lane *lane) noexcept nogil:
    """Punts the datagrams for sockets without a descriptor and takes them off the lane."""
    cdef iovec[2] pieces
    cdef zt_punt record
    cdef zt_out *out
    cdef zt_datagram *datagram
    cdef uint32_t i, at
    memset(&record, 0, sizeof(zt_punt))
    record.kind = PUNT_SEND
    for i in range(lane.out_count):
        out = &lane.outs[i]
        if out.place.socket >= 0:
            continue
        record.place = out.place
        at = out.first
        while at != LANE_END:
            datagram = &lane.datagrams[at]
            pieces[0].iov_base = <void *>datagram.head
            pieces[0].iov_len = datagram.head_size
            pieces[1].iov_base = <void *>datagram.tail
            pieces[1].iov_len = datagram.tail_size
            if zt_queue_put(&plane.punts, &record, pieces, 2):
                shared_count(&lane.counters.punts, 1)
            at = datagram.next
        out.count = 0
