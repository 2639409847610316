"""The data plane's view of peers, paths, networks and members: C structs behind one lock.

The control plane is the only writer. Its methods (tables.pyx) take the write lock for the few
instructions that change a structure; the data plane takes the read lock once per batch and keeps
no pointer into the tables after it lets go, so that the arrays may move when they grow. Words that
the data plane itself writes (times) are marked "atomic" and go through shared_load/shared_store.
"""

from cpython.ref cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from zt._fast.cipher cimport zt_key
from zt._fast.filter cimport zt_credentials, zt_program


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_rwlock_t:
        pass
    int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
    int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
    int pthread_rwlock_unlock(pthread_rwlock_t *lock)


cdef extern from "table_map.h" nogil:
    enum:
        MAP_NONE
    ctypedef struct zt_map_cell:
        uint64_t key
        uint32_t value
    ctypedef struct zt_map:
        zt_map_cell *cells
        uint32_t mask
        uint32_t used
        uint64_t seed
    uint64_t map_mix(uint64_t seed, uint64_t x)
    uint32_t map_next(const zt_map *map, uint64_t key, uint32_t at)
    uint32_t map_get(const zt_map *map, uint64_t key)
    int map_add(zt_map *map, uint64_t key, uint32_t value)
    void map_remove(zt_map *map, uint64_t key, uint32_t value)
    void map_free(zt_map *map)
    int64_t shared_load(const int64_t *p)
    void shared_store(int64_t *p, int64_t v)
    int shared_claim(int64_t *p, int64_t seen, int64_t v)
    void shared_add(int64_t *p, int64_t n)
    void shared_snapshot(void *to, const void *from_, size_t size)
    void shared_count(uint64_t *p, uint64_t n)


cdef extern from "table_window.h" nogil:
    ctypedef struct zt_window:
        pass
    bint window_repeats(zt_window **window, uint64_t id)


cdef extern from "table_bond.h" nogil:
    enum:
        BOND_SLOTS
        BOND_FLOWS
        BOND_SHARES
        BOND_SAMPLES
        BOND_NO_SLOT
        BOND_BROADCAST
        BOND_XOR
        BOND_AWARE
    ctypedef struct zt_sample:
        uint64_t id
        int64_t time
    ctypedef struct zt_samples:
        int64_t count
        zt_sample[BOND_SAMPLES] entries
    ctypedef struct zt_bond:
        uint8_t policy
        uint8_t slots
        uint8_t count
        uint8_t[BOND_SLOTS] member
        uint32_t[BOND_SLOTS] upto
        uint64_t members
        int64_t[BOND_SLOTS] path
        uint32_t packets
        int64_t turn
        uint32_t *flows
        zt_samples *sent
        zt_samples *received
    void samples_note(zt_samples *samples, uint64_t id, int64_t now)
    int bond_slot(const zt_bond *bond, int64_t path)
    uint16_t bond_flow(const uint8_t *p, uint32_t n, uint16_t ethertype)
    void bond_heard(zt_bond *bond, uint16_t flow, int64_t path, int64_t now)
    int bond_pick(zt_bond *bond, uint16_t flow, uint32_t packets, uint64_t random, int64_t now)
    void bond_sweep(zt_bond *bond, int64_t now, int64_t idle, int away, uint32_t *counts)
    void bond_free(zt_bond *bond)
    size_t bond_bytes(const zt_bond *bond)


cdef extern from "table_place.h" nogil:
    enum:
        NO_PATH
    ctypedef struct Place "zt_place":
        int32_t socket
        uint16_t port
        uint8_t ip_size
        uint8_t[16] ip
    bint same_place(const Place *a, const Place *b)
    uint64_t place_hash(uint64_t seed, const Place *place)


cdef extern from "greeting.h" nogil:
    enum:
        GREETING_OK_MAX
        GREETING_VERSION
    ctypedef struct zt_greeting:
        int64_t until
        uint32_t era
    bint zt_greeting_note(
        zt_greeting *g, const uint8_t *secret, const uint8_t *packet, size_t n, size_t tail
    )
    bint zt_greeting_repeats(
        const zt_greeting *g, const uint8_t *secret, const zt_key *key, uint8_t *packet, size_t n
    )
    bint zt_greeting_take(zt_greeting *g, const uint8_t *packet)
    size_t zt_greeting_ok(
        uint8_t *ok, const uint8_t *hello, uint64_t id, const Place *seen, const uint8_t *version
    )


# A handle is generation << 32 | slot, so that one kept beyond path_remove finds nothing.
cdef struct Path:
    Place place        # ip_size 0: the slot is free
    uint16_t mtu       # largest datagram
    uint32_t generation
    uint32_t next_free # while free
    uint64_t trusted_id  # 0: not trusted
    int64_t last_in    # atomic: ms, last authentic packet; 0 = never
    int64_t last_out   # atomic
    int64_t relay_until  # atomic: ms; what comes on it for others is forwarded, also by a non-root


cdef struct PeerPath:
    int64_t path
    int64_t last_in    # atomic: ms, last authentic packet of this peer on this path
    zt_greeting greeting


cdef struct Peer:
    uint64_t address
    const zt_key *key  # borrowed from `owner`
    PyObject *owner    # the PeerKey; one reference is ours
    int64_t route      # path handle or NO_PATH
    int64_t mirror     # where a second copy goes, or NO_PATH
    zt_bond *bond      # owned; NULL: all packets take the route
    zt_window *window  # owned; packet IDs lately seen, NULL until the first frame
    PeerPath *paths    # owned; the confirmed direct paths
    uint16_t path_count
    uint16_t path_room
    uint8_t suite
    int64_t last_in    # atomic: ms, last authentic packet over any path
    int64_t last_frame # atomic: ms, last FRAME or EXT_FRAME
    int64_t last_notice  # atomic: ms, last RECEIVED
    int64_t packets_in # atomic: authentic ones
    int64_t packets_out  # atomic: sent by the data plane
    int64_t errors     # atomic: packets in its name that were not authentic


cdef struct Member:
    uint64_t address
    int64_t push_due_ms  # frames to it are punted from then on
    const zt_credentials *credentials  # borrowed from `remote`; NULL: none known
    PyObject *remote   # the filter.Remote, or NULL; one reference is ours
    bint allowed       # inbound gate


cdef struct BridgeRoute:
    uint64_t mac
    uint64_t address


# What the filter said, per network.
cdef enum FilterCount:
    OUT_ACCEPTED
    OUT_DROPPED
    IN_ACCEPTED
    IN_DROPPED


cdef struct Network:
    uint64_t nwid
    uint64_t mac       # ours, 48 bits
    uint64_t mac_mask  # what turns an address into the low 40 bits of its MAC and back
    uint8_t mac_prefix # first octet of every in-network MAC
    uint32_t mtu       # Ethernet payload
    bint public
    bint bridge        # we are an active bridge
    bint per_segment   # the verdict may differ between segments of one burst
    const zt_program *program  # borrowed from `rules`; NULL: everything is accepted
    PyObject *rules    # the filter.Program, or NULL; one reference is ours
    Member *members    # owned
    uint32_t member_room
    zt_map member_map  # address -> index of members
    int64_t[4] judged  # atomic: frames by FilterCount
    BridgeRoute *routes  # owned
    uint32_t route_room
    zt_map route_map   # foreign MAC -> index of routes


cdef struct Core:
    pthread_rwlock_t lock
    uint64_t address   # our own
    Path *paths        # owned; slots are stable, freed ones are chained
    uint32_t path_room
    uint32_t path_top  # slots ever used
    uint32_t path_free # head of the chain, MAP_NONE = none
    zt_map path_map    # hash of the place -> slot
    Peer *peers        # owned; dense
    uint32_t peer_room
    zt_map peer_map    # address -> index of peers
    Network *networks  # owned; dense
    uint32_t network_room
    zt_map network_map # nwid -> index of networks
    bint relaying
    int64_t turning_away   # atomic: 1 while HELLOs of strangers are dropped
    int64_t upstream   # path of last resort for relayed datagrams, or NO_PATH
    bint greeting      # HELLOs that repeat themselves are answered
    uint32_t greeting_era
    uint8_t[32] greeting_secret
    uint8_t[GREETING_VERSION] version  # ours, as HELLO and its OK have it


cdef inline int64_t find_path(const Core *core, const Place *place) noexcept nogil:
    """Handle of the path, or NO_PATH."""
    cdef uint64_t key
    cdef uint32_t cell
    cdef const Path *path
    key = place_hash(core.path_map.seed, place)
    cell = map_next(&core.path_map, key, MAP_NONE)
    while cell != MAP_NONE:
        path = &core.paths[core.path_map.cells[cell].value]
        if same_place(&path.place, place):
            return <int64_t>path.generation << 32 | core.path_map.cells[cell].value
        cell = map_next(&core.path_map, key, cell)
    return NO_PATH


cdef inline Path *path_at(const Core *core, int64_t handle) noexcept nogil:
    """The path of a handle, or NULL when it was removed."""
    cdef uint32_t slot = <uint32_t>handle
    if handle < 0 or slot >= core.path_top:
        return NULL
    if core.paths[slot].place.ip_size == 0 or core.paths[slot].generation != <uint32_t>(handle >> 32):
        return NULL
    return &core.paths[slot]


cdef inline Peer *find_peer(const Core *core, uint64_t address) noexcept nogil:
    cdef uint32_t i = map_get(&core.peer_map, address)
    return NULL if i == MAP_NONE else &core.peers[i]


cdef inline PeerPath *find_peer_path(const Peer *peer, int64_t path) noexcept nogil:
    cdef uint32_t i
    for i in range(peer.path_count):
        if peer.paths[i].path == path:
            return &peer.paths[i]
    return NULL


cdef inline Network *find_network(const Core *core, uint64_t nwid) noexcept nogil:
    cdef uint32_t i = map_get(&core.network_map, nwid)
    return NULL if i == MAP_NONE else &core.networks[i]


cdef inline Member *find_member(const Network *network, uint64_t address) noexcept nogil:
    cdef uint32_t i = map_get(&network.member_map, address)
    return NULL if i == MAP_NONE else &network.members[i]


cdef inline uint64_t find_bridge(const Network *network, uint64_t mac) noexcept nogil:
    """The address behind which a foreign MAC lives, or 0."""
    cdef uint32_t i = map_get(&network.route_map, mac)
    return 0 if i == MAP_NONE else network.routes[i].address


cdef inline uint64_t mac_of(const Network *network, uint64_t address) noexcept nogil:
    """Chapter 04, 2.2."""
    return <uint64_t>network.mac_prefix << 40 | (address ^ network.mac_mask)


cdef class Tables:
    cdef Core core
    cdef uint32_t max_peers
    cdef uint32_t max_paths
    cdef Peer *peer(self, uint64_t address) except NULL
    cdef Network *network(self, uint64_t nwid) except NULL


cdef int make_place(Place *place, int socket, bytes ip, int port) except -1
