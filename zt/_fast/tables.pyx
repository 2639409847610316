"""Peers, paths, networks and members for the data plane (contract: docs/architecture.md).

Every method is for the control plane's one thread. Reading needs no lock there, because nobody
else writes; changing takes the write lock, which waits for the batches in flight (some tens of
microseconds) and is preferred over new ones. Memory that a reader could still look at is freed and
Python references are dropped only after the lock was held.
"""

import os

from cpython.ref cimport Py_XDECREF, Py_XINCREF
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from zt._fast.cipher cimport PeerKey
from zt._fast.filter cimport Program, Remote


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_rwlockattr_t:
        pass
    int PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP
    int pthread_rwlockattr_init(pthread_rwlockattr_t *attr)
    int pthread_rwlockattr_setkind_np(pthread_rwlockattr_t *attr, int kind)
    int pthread_rwlockattr_destroy(pthread_rwlockattr_t *attr)
    int pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attr)
    int pthread_rwlock_destroy(pthread_rwlock_t *lock)


cdef enum:
    MAX_NETWORKS = 4096
    MAX_MEMBERS = 1 << 20       # per network
    MAX_BRIDGE_ROUTES = 1 << 20  # per network
    MAX_PEER_PATHS = 64
    MAX_MTU = 10324             # chapter 02, section 1
    MAX_PACKET = 10024


class TablesFull(Exception):
    """A table is at its bound (or there is no memory): the control plane must evict first."""


cdef int make_place(Place *place, int socket, bytes ip, int port) except -1:
    """ValueError: `ip` is not 4 or 16 bytes, or `port` no port."""
    if len(ip) not in (4, 16):
        raise ValueError("an IP address has 4 or 16 bytes")
    if not 0 <= port <= 0xFFFF:
        raise ValueError("a port has 16 bits")
    memset(place, 0, sizeof(Place))
    place.socket = socket
    place.port = port
    place.ip_size = <uint8_t>len(ip)
    memcpy(place.ip, <const uint8_t *>ip, place.ip_size)
    return 0


cdef int ensure(void **array, uint32_t *room, uint32_t used, size_t size, uint32_t bound) except -1:
    """Makes room for one more element. The caller holds the write lock: the array may move."""
    cdef uint32_t grown
    cdef void *moved
    if used < room[0]:
        return 0
    grown = min(bound, max(4, room[0] * 2))
    if used >= bound:
        raise TablesFull(f"more than {bound} entries")
    moved = realloc(array[0], grown * size)
    if moved == NULL:
        raise TablesFull("no memory")
    array[0] = moved
    room[0] = grown
    return 0


cdef int index(zt_map *map, uint64_t key, uint32_t value) except -1:
    if map_add(map, key, value):
        raise TablesFull("no memory")
    return 0


cdef void release_network(Network *network) noexcept:
    cdef uint32_t i
    for i in range(network.member_map.used):
        Py_XDECREF(network.members[i].remote)
    Py_XDECREF(network.rules)
    free(network.members)
    free(network.routes)
    map_free(&network.member_map)
    map_free(&network.route_map)


cdef class Tables:
    """Our own address and everything that the data plane looks up.

    `max_peers` and `max_paths` bound the tables; what would exceed them raises TablesFull. An
    unused Tables takes about one kilobyte, a peer with one path about 400 bytes plus its key."""

    def __cinit__(self, uint64_t address, *, uint32_t max_peers=65536, uint32_t max_paths=262144):
        cdef pthread_rwlockattr_t attr
        cdef uint64_t seed
        cdef bytes secret = os.urandom(sizeof(self.core.greeting_secret))
        memset(&self.core, 0, sizeof(Core))
        pthread_rwlockattr_init(&attr)
        pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP)
        pthread_rwlock_init(&self.core.lock, &attr)
        pthread_rwlockattr_destroy(&attr)
        seed = int.from_bytes(os.urandom(8), "little")
        self.core.path_map.seed = seed
        self.core.peer_map.seed = seed
        self.core.network_map.seed = seed
        memcpy(self.core.greeting_secret, <const uint8_t *>secret, sizeof(self.core.greeting_secret))
        self.core.address = address
        self.core.path_free = MAP_NONE
        self.core.upstream = NO_PATH
        self.max_peers = max_peers
        self.max_paths = max_paths

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.core.peer_map.used):
            Py_XDECREF(self.core.peers[i].owner)
            free(self.core.peers[i].paths)
            free(self.core.peers[i].window)
            bond_free(self.core.peers[i].bond)
        for i in range(self.core.network_map.used):
            release_network(&self.core.networks[i])
        free(self.core.paths)
        free(self.core.peers)
        free(self.core.networks)
        map_free(&self.core.path_map)
        map_free(&self.core.peer_map)
        map_free(&self.core.network_map)
        pthread_rwlock_destroy(&self.core.lock)

    @property
    def address(self) -> int:
        return self.core.address

    # ---- paths ----

    def path(self, int socket, bytes ip not None, int port, *, int mtu=1432, uint64_t trusted_id=0):
        """Handle of the path to `ip` (4 or 16 bytes) and `port` over a local socket; added if new,
        and its MTU (largest datagram, bytes) and trusted path ID (0: none) set either way.

        ValueError: not an address, port or MTU. TablesFull."""
        cdef Place place
        cdef int64_t handle
        cdef Path *path
        cdef uint32_t slot
        cdef uint64_t key
        make_place(&place, socket, ip, port)
        if not 64 <= mtu <= MAX_MTU:
            raise ValueError("a path MTU has 64 to 10324 bytes")
        handle = find_path(&self.core, &place)
        if handle != NO_PATH:
            path = path_at(&self.core, handle)
            if path.mtu != mtu or path.trusted_id != trusted_id:
                pthread_rwlock_wrlock(&self.core.lock)
                path.mtu = mtu
                path.trusted_id = trusted_id
                pthread_rwlock_unlock(&self.core.lock)
            return handle
        key = place_hash(self.core.path_map.seed, &place)
        pthread_rwlock_wrlock(&self.core.lock)
        try:
            slot = self.core.path_free
            if slot == MAP_NONE:
                slot = self.core.path_top
                ensure(<void **>&self.core.paths, &self.core.path_room, slot, sizeof(Path), self.max_paths)
                memset(&self.core.paths[slot], 0, sizeof(Path))
                self.core.path_free = slot
                self.core.paths[slot].next_free = MAP_NONE
                self.core.path_top += 1
            index(&self.core.path_map, key, slot)
            path = &self.core.paths[slot]
            self.core.path_free = path.next_free
            path.place = place
            path.mtu = mtu
            path.trusted_id = trusted_id
            path.last_in = path.last_out = path.relay_until = 0
        finally:
            pthread_rwlock_unlock(&self.core.lock)
        return <int64_t>path.generation << 32 | slot

    def path_remove(self, int64_t path) -> None:
        """Forgets a path; its handle finds nothing from now on, also where peers still name it."""
        cdef Path *entry = path_at(&self.core, path)
        cdef uint64_t key
        if entry == NULL:
            return
        key = place_hash(self.core.path_map.seed, &entry.place)
        pthread_rwlock_wrlock(&self.core.lock)
        map_remove(&self.core.path_map, key, <uint32_t>path)
        entry.place.ip_size = 0
        entry.generation = (entry.generation + 1) & 0x7FFFFFFF
        entry.next_free = self.core.path_free
        self.core.path_free = <uint32_t>path
        pthread_rwlock_unlock(&self.core.lock)

    def path_times(self, int64_t path):
        """Last authentic packet in, last datagram out; ms, 0 = never (or no such path)."""
        cdef Path *entry = path_at(&self.core, path)
        if entry == NULL:
            return 0, 0
        return shared_load(&entry.last_in), shared_load(&entry.last_out)

    def path_relay_until(self, int64_t path, int64_t until_ms) -> None:
        """Until then what comes on the path for others is forwarded though we are no root."""
        cdef Path *entry = path_at(&self.core, path)
        if entry != NULL:
            shared_store(&entry.relay_until, until_ms)

    # ---- peers ----

    cdef Peer *peer(self, uint64_t address) except NULL:
        cdef Peer *peer = find_peer(&self.core, address)
        if peer == NULL:
            raise KeyError(f"no peer {address:010x}")
        return peer

    def peer_set(self, uint64_t address, PeerKey key not None, int suite) -> None:
        """Adds a peer or changes its key and the suite used towards it (0, 1 or 3). TablesFull."""
        cdef Peer *peer = find_peer(&self.core, address)
        cdef PyObject *old
        cdef uint32_t i
        if suite not in (0, 1, 3):
            raise ValueError("packets are sent under suite 0, 1 or 3")
        if peer != NULL and peer.owner == <PyObject *>key and peer.suite == suite:
            return
        old = NULL
        pthread_rwlock_wrlock(&self.core.lock)
        try:
            if peer == NULL:
                i = self.core.peer_map.used
                ensure(<void **>&self.core.peers, &self.core.peer_room, i, sizeof(Peer), self.max_peers)
                index(&self.core.peer_map, address, i)
                peer = &self.core.peers[i]
                memset(peer, 0, sizeof(Peer))
                peer.address = address
                peer.route = peer.mirror = NO_PATH
            old = peer.owner
            Py_XINCREF(<PyObject *>key)
            peer.owner = <PyObject *>key
            peer.key = &key.key
            peer.suite = suite
        finally:
            pthread_rwlock_unlock(&self.core.lock)
            Py_XDECREF(old)

    def peer_remove(self, uint64_t address) -> None:
        cdef uint32_t i = map_get(&self.core.peer_map, address)
        cdef uint32_t last = self.core.peer_map.used - 1
        cdef Peer gone
        if i == MAP_NONE:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        gone = self.core.peers[i]
        map_remove(&self.core.peer_map, address, i)
        if i != last:
            self.core.peers[i] = self.core.peers[last]
            self.core.peer_map.cells[
                map_next(&self.core.peer_map, self.core.peers[i].address, MAP_NONE)
            ].value = i
        pthread_rwlock_unlock(&self.core.lock)
        free(gone.paths)
        free(gone.window)
        bond_free(gone.bond)
        Py_XDECREF(gone.owner)

    def peer_route(self, uint64_t address, path, mirror=None) -> None:
        """Where the peer's packets go from now on: the handle of a direct path or of its relay's
        path, None while there is no way. `mirror`: a second path that gets a copy of each."""
        cdef Peer *peer = self.peer(address)
        cdef int64_t route = NO_PATH if path is None else path
        cdef int64_t second = NO_PATH if mirror is None else mirror
        if peer.route == route and peer.mirror == second:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        peer.route = route
        peer.mirror = second
        pthread_rwlock_unlock(&self.core.lock)

    def peer_path_add(self, uint64_t address, int64_t path) -> None:
        """A confirmed direct path: packets on it cause no notice. TablesFull beyond 64."""
        cdef Peer *peer = self.peer(address)
        cdef PeerPath *moved
        cdef int room
        if find_peer_path(peer, path) != NULL:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        try:
            if peer.path_count == peer.path_room:
                if peer.path_count >= MAX_PEER_PATHS:
                    raise TablesFull("more than 64 paths of one peer")
                room = max(1, peer.path_room * 2)
                moved = <PeerPath *>realloc(peer.paths, room * sizeof(PeerPath))
                if moved == NULL:
                    raise TablesFull("no memory")
                peer.paths = moved
                peer.path_room = room
            memset(&peer.paths[peer.path_count], 0, sizeof(PeerPath))
            peer.paths[peer.path_count].path = path
            peer.path_count += 1
        finally:
            pthread_rwlock_unlock(&self.core.lock)

    def peer_path_remove(self, uint64_t address, int64_t path) -> None:
        cdef Peer *peer = self.peer(address)
        cdef PeerPath *entry = find_peer_path(peer, path)
        if entry == NULL:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        peer.path_count -= 1
        entry[0] = peer.paths[peer.path_count]
        pthread_rwlock_unlock(&self.core.lock)

    def peer_path_time(self, uint64_t address, int64_t path) -> int:
        """Last authentic packet of that peer on that path; ms, 0 = never or not its path."""
        cdef PeerPath *entry = find_peer_path(self.peer(address), path)
        return 0 if entry == NULL else shared_load(&entry.last_in)

    def peer_times(self, uint64_t address):
        """Last authentic packet over any path, last FRAME or EXT_FRAME; ms, 0 = never."""
        cdef Peer *peer = self.peer(address)
        return shared_load(&peer.last_in), shared_load(&peer.last_frame)

    def peer_packets(self, uint64_t address):
        """Authentic packets received from a peer, packets that the data plane sent to it."""
        cdef Peer *peer = self.peer(address)
        return shared_load(&peer.packets_in), shared_load(&peer.packets_out)

    def peer_errors(self, uint64_t address):
        """Packets in a peer's name that were not authentic."""
        return shared_load(&self.peer(address).errors)

    def peer_error(self, uint64_t address):
        """Counts one that the control plane found."""
        shared_add(&self.peer(address).errors, 1)

    def relay(self, bint enabled, upstream) -> None:
        """Whether datagrams for others are forwarded, and over which path (handle or None) those
        go whose destination is unknown or has no route."""
        pthread_rwlock_wrlock(&self.core.lock)
        self.core.relaying = enabled
        self.core.upstream = NO_PATH if upstream is None else upstream
        pthread_rwlock_unlock(&self.core.lock)

    def turn_strangers_away(self, bint away) -> None:
        """Whether HELLOs from addresses nobody knows are dropped and counted, but for those with an
        encrypted layer: what the control plane has no room for need not wake it."""
        shared_store(&self.core.turning_away, away)

    # ---- greetings ----

    def greetings(self, bytes version) -> None:
        """Whether HELLOs that repeat what `greeting` told are answered by the data plane; if so
        with our version, encoded (chapter 02, 9.1)."""
        if version is not None and len(version) != GREETING_VERSION:
            raise ValueError("a version has 5 bytes")
        pthread_rwlock_wrlock(&self.core.lock)
        self.core.greeting = version is not None
        if version is not None:
            memcpy(self.core.version, <const uint8_t *>version, GREETING_VERSION)
        pthread_rwlock_unlock(&self.core.lock)

    def greeting(
        self, uint64_t address, int64_t path, const uint8_t[::1] hello not None, size_t tail,
        int64_t until_ms
    ) -> None:
        """A peer's HELLO on one of its paths was answered with nothing that it did not know. While
        the next ones say the same, and later by its clock, they need no answer from us until then.

        `hello` is the authentic packet with its masked part, from `tail` on, in the clear."""
        cdef PeerPath *entry = find_peer_path(self.peer(address), path)
        cdef bint noted
        if entry == NULL or hello.shape[0] > MAX_PACKET:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        noted = zt_greeting_note(
            &entry.greeting, self.core.greeting_secret, &hello[0], hello.shape[0], tail
        )
        entry.greeting.until = until_ms if noted else 0
        entry.greeting.era = self.core.greeting_era
        pthread_rwlock_unlock(&self.core.lock)

    def greetings_end(self) -> None:
        """Something changed that a HELLO is answered with or judged by: all are ours again."""
        pthread_rwlock_wrlock(&self.core.lock)
        self.core.greeting_era += 1
        pthread_rwlock_unlock(&self.core.lock)

    # ---- networks and members ----

    cdef Network *network(self, uint64_t nwid) except NULL:
        cdef Network *network = find_network(&self.core, nwid)
        if network == NULL:
            raise KeyError(f"no network {nwid:016x}")
        return network

    def network_set(
        self, uint64_t nwid, *, uint32_t mtu, uint64_t mac, bint public, bint bridge, Program rules
    ) -> None:
        """Adds a network or changes it (members and bridge routes stay). `mtu`: Ethernet payload in
        bytes; `mac`: ours; `rules`: None accepts every frame. TablesFull."""
        cdef Network *network = find_network(&self.core, nwid)
        cdef PyObject *old = NULL
        cdef uint32_t i
        pthread_rwlock_wrlock(&self.core.lock)
        try:
            if network == NULL:
                i = self.core.network_map.used
                ensure(
                    <void **>&self.core.networks, &self.core.network_room, i, sizeof(Network), MAX_NETWORKS
                )
                index(&self.core.network_map, nwid, i)
                network = &self.core.networks[i]
                memset(network, 0, sizeof(Network))
                network.nwid = nwid
                network.mac_mask = mac_mask_of(nwid)
                network.mac_prefix = mac_prefix_of(nwid)
                network.member_map.seed = self.core.peer_map.seed
                network.route_map.seed = self.core.peer_map.seed
            network.mtu = mtu
            network.mac = mac
            network.public = public
            network.bridge = bridge
            old = network.rules
            network.rules = NULL
            network.program = NULL
            network.per_segment = False
            if rules is not None:
                Py_XINCREF(<PyObject *>rules)
                network.rules = <PyObject *>rules
                network.program = &rules.program
                network.per_segment = rules.per_segment
        finally:
            pthread_rwlock_unlock(&self.core.lock)
            Py_XDECREF(old)

    def network_frames(self, uint64_t nwid):
        """Frames that the data plane's filter accepted and dropped: outbound (yes, no), then
        inbound (yes, no). An explicit DROP counts nowhere (ch. 04, 16). KeyError."""
        cdef Network *network = self.network(nwid)
        cdef int i
        return tuple([shared_load(&network.judged[i]) for i in range(4)])

    def network_remove(self, uint64_t nwid) -> None:
        """Forgets a network with its members and bridge routes."""
        cdef uint32_t i = map_get(&self.core.network_map, nwid)
        cdef uint32_t last = self.core.network_map.used - 1
        cdef Network gone
        if i == MAP_NONE:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        gone = self.core.networks[i]
        map_remove(&self.core.network_map, nwid, i)
        if i != last:
            self.core.networks[i] = self.core.networks[last]
            self.core.network_map.cells[
                map_next(&self.core.network_map, self.core.networks[i].nwid, MAP_NONE)
            ].value = i
        pthread_rwlock_unlock(&self.core.lock)
        release_network(&gone)

    def member_set(
        self, uint64_t nwid, uint64_t address, *, bint allowed, int64_t push_due_ms, Remote credentials=None
    ) -> None:
        """Adds a member or changes it. `allowed`: its frames pass the inbound gate (ch. 04, 7.10);
        from `push_due_ms` on frames to it are punted first; `credentials`: its tags and capabilities
        for the filter. KeyError: no such network. TablesFull."""
        cdef Network *network = self.network(nwid)
        cdef Member *member = find_member(network, address)
        cdef PyObject *old = NULL
        cdef uint32_t i
        pthread_rwlock_wrlock(&self.core.lock)
        try:
            if member == NULL:
                i = network.member_map.used
                ensure(<void **>&network.members, &network.member_room, i, sizeof(Member), MAX_MEMBERS)
                index(&network.member_map, address, i)
                member = &network.members[i]
                member.address = address
                member.remote = NULL
            member.push_due_ms = push_due_ms
            member.allowed = allowed
            old = member.remote
            member.remote = NULL
            member.credentials = NULL
            if credentials is not None:
                Py_XINCREF(<PyObject *>credentials)
                member.remote = <PyObject *>credentials
                member.credentials = &credentials.credentials
        finally:
            pthread_rwlock_unlock(&self.core.lock)
            Py_XDECREF(old)

    def member_remove(self, uint64_t nwid, uint64_t address) -> None:
        """KeyError: no such network."""
        cdef Network *network = self.network(nwid)
        cdef uint32_t i = map_get(&network.member_map, address)
        cdef uint32_t last = network.member_map.used - 1
        cdef PyObject *old
        if i == MAP_NONE:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        old = network.members[i].remote
        map_remove(&network.member_map, address, i)
        if i != last:
            network.members[i] = network.members[last]
            network.member_map.cells[
                map_next(&network.member_map, network.members[i].address, MAP_NONE)
            ].value = i
        pthread_rwlock_unlock(&self.core.lock)
        Py_XDECREF(old)

    def bridge_route(self, uint64_t nwid, uint64_t mac, address) -> None:
        """The member behind which a foreign MAC lives; None forgets it. KeyError: no such network.
        TablesFull."""
        cdef Network *network = self.network(nwid)
        cdef uint32_t i = map_get(&network.route_map, mac)
        cdef uint32_t last = network.route_map.used - 1
        cdef uint64_t target = 0 if address is None else address
        if i == MAP_NONE and address is None:
            return
        if i != MAP_NONE and network.routes[i].address == target:
            return
        pthread_rwlock_wrlock(&self.core.lock)
        try:
            if address is None:
                map_remove(&network.route_map, mac, i)
                if i != last:
                    network.routes[i] = network.routes[last]
                    network.route_map.cells[
                        map_next(&network.route_map, network.routes[i].mac, MAP_NONE)
                    ].value = i
                return
            if i == MAP_NONE:
                i = network.route_map.used
                ensure(
                    <void **>&network.routes, &network.route_room, i, sizeof(BridgeRoute),
                    MAX_BRIDGE_ROUTES,
                )
                index(&network.route_map, mac, i)
                network.routes[i].mac = mac
            network.routes[i].address = target
        finally:
            pthread_rwlock_unlock(&self.core.lock)

    def counters(self):
        """Entries of each table and the bytes they take."""
        cdef uint64_t members = 0, routes = 0, size
        cdef uint32_t i
        size = sizeof(Tables) + self.core.path_room * sizeof(Path) + self.core.peer_room * sizeof(Peer)
        size += self.core.network_room * sizeof(Network)
        size += map_bytes(&self.core.path_map) + map_bytes(&self.core.peer_map)
        size += map_bytes(&self.core.network_map)
        for i in range(self.core.peer_map.used):
            size += self.core.peers[i].path_room * sizeof(PeerPath)
            size += bond_bytes(self.core.peers[i].bond)
            if self.core.peers[i].window != NULL:
                size += sizeof(zt_window)
        for i in range(self.core.network_map.used):
            members += self.core.networks[i].member_map.used
            routes += self.core.networks[i].route_map.used
            size += self.core.networks[i].member_room * sizeof(Member)
            size += self.core.networks[i].route_room * sizeof(BridgeRoute)
            size += map_bytes(&self.core.networks[i].member_map)
            size += map_bytes(&self.core.networks[i].route_map)
        return {
            "paths": self.core.path_map.used,
            "peers": self.core.peer_map.used,
            "networks": self.core.network_map.used,
            "members": members,
            "bridge_routes": routes,
            "bytes": size,
        }


cdef uint64_t map_bytes(const zt_map *map) noexcept:
    return 0 if map.cells == NULL else (<uint64_t>map.mask + 1) * sizeof(zt_map_cell)


cdef uint64_t mac_mask_of(uint64_t nwid) noexcept:
    """Chapter 04, 2.2: octets 1..5 of a MAC are the address XOR network ID bytes n1..n5."""
    cdef uint64_t mask = 0
    cdef int i
    for i in range(1, 6):
        mask = mask << 8 | (nwid >> (8 * i) & 0xFF)
    return mask


cdef uint8_t mac_prefix_of(uint64_t nwid) noexcept:
    cdef uint8_t first = <uint8_t>((nwid & 0xFE) | 0x02)
    return 0x32 if first == 0x52 else first
