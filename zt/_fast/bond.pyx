"""Bonds in the tables: which paths of a peer share its packets, and what was measured on them.

The rules are kernels/table_bond.h; contract: docs/architecture.md. As the methods of Tables, these
functions are for the control plane's one thread.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from zt._fast.tables cimport (
    BOND_AWARE, BOND_FLOWS, BOND_SAMPLES, BOND_SHARES, BOND_SLOTS, BOND_XOR, NO_PATH, Peer, Tables, bond_flow,
    bond_free, bond_sweep, pthread_rwlock_unlock, pthread_rwlock_wrlock, shared_load, zt_bond, zt_samples,
)

from zt._fast.tables import TablesFull


def bond_set(
    Tables tables not None, uint64_t address, int policy, paths not None, members not None, *,
    uint32_t packets=64,
):
    """Bonds a peer, or changes its bond: flows and samples of slots that keep their path stay.

    `policy`: code of the API, 1 to 5. `paths`: the handle in each slot, None for an empty one.
    `members`: (slot, share) of those that packets go to, in order; shares are relative weights for
    new flows of balance-aware, all zero counts as all equal. `packets`: in a row on one path under
    balance-rr. KeyError: no such peer. ValueError: other values, more than 64 slots. TablesFull: no
    memory."""
    cdef Peer *peer = tables.peer(address)
    cdef zt_bond bond
    cdef zt_bond *old = peer.bond
    cdef zt_bond *gone = NULL
    cdef uint64_t total = 0, before = 0, share
    cdef int slot, i
    cdef bint flows = policy == BOND_XOR or policy == BOND_AWARE
    if not 1 <= policy <= 5 or packets == 0 or len(paths) > BOND_SLOTS or len(members) > len(paths):
        raise ValueError("not a bond")
    memset(&bond, 0, sizeof(zt_bond))
    bond.policy = <uint8_t>policy
    bond.packets = packets
    bond.slots = <uint8_t>len(paths)
    for i in range(bond.slots):
        bond.path[i] = NO_PATH if paths[i] is None else paths[i]
    for _, weight in members:
        if not 0 <= weight <= BOND_SHARES:
            raise ValueError("a share is 0 to 65536")
        total += weight
    for i in range(<int>len(members)):
        slot = members[i][0]
        if not 0 <= slot < bond.slots or bond.path[slot] == NO_PATH or bond.members >> slot & 1:
            raise ValueError("a member is a slot with a path, named once")
        share = members[i][1]
        before += share if total else 1
        bond.upto[i] = <uint32_t>(before * BOND_SHARES // (total if total else <uint64_t>len(members)))
        bond.member[i] = <uint8_t>slot
        bond.members |= <uint64_t>1 << slot
    bond.count = <uint8_t>len(members)
    if old == NULL or old.policy != policy:
        old = <zt_bond *>calloc(1, sizeof(zt_bond))
        if old != NULL and flows:
            old.flows = <uint32_t *>calloc(BOND_FLOWS, sizeof(uint32_t))
        if old == NULL or (flows and old.flows == NULL):
            bond_free(old)
            raise TablesFull("no memory")
        gone = peer.bond
    pthread_rwlock_wrlock(&tables.core.lock)
    try:
        grow(&old.sent, old, &bond)
        grow(&old.received, old, &bond)
        bond.flows = old.flows
        bond.sent = old.sent
        bond.received = old.received
        bond.turn = old.turn
        old[0] = bond
        peer.bond = old
    finally:
        pthread_rwlock_unlock(&tables.core.lock)
        if peer.bond != old:
            bond_free(old)
        elif gone != old:
            bond_free(gone)


cdef int grow(zt_samples **samples, const zt_bond *old, const zt_bond *new) except -1:
    """Buffers for all slots; those whose path changed are emptied."""
    cdef zt_samples *moved = samples[0]
    cdef int i
    if new.slots:
        moved = <zt_samples *>realloc(samples[0], new.slots * sizeof(zt_samples))
        if moved == NULL:
            raise TablesFull("no memory")
        samples[0] = moved
    for i in range(new.slots):
        if i >= old.slots or old.path[i] != new.path[i]:
            moved[i].count = 0
    return 0


def bond_clear(Tables tables not None, uint64_t address):
    """Ends a bond: all packets take the route again. KeyError: no such peer."""
    cdef Peer *peer = tables.peer(address)
    cdef zt_bond *gone = peer.bond
    if gone == NULL:
        return
    pthread_rwlock_wrlock(&tables.core.lock)
    peer.bond = NULL
    pthread_rwlock_unlock(&tables.core.lock)
    bond_free(gone)


def bond_samples(Tables tables not None, uint64_t address):
    """Takes what was remembered since the last call, by slot: lists of (packet ID, ms) sent and
    received, at most 192 each. KeyError: no such peer."""
    cdef zt_bond *bond = tables.peer(address).bond
    cdef int i
    result = []
    if bond == NULL:
        return result
    for i in range(bond.slots):
        if not shared_load(&bond.sent[i].count) and not shared_load(&bond.received[i].count):
            result.append(([], []))
            continue
        pthread_rwlock_wrlock(&tables.core.lock)
        try:
            result.append((taken(&bond.sent[i]), taken(&bond.received[i])))
        finally:
            pthread_rwlock_unlock(&tables.core.lock)
    return result


cdef list taken(zt_samples *samples):
    cdef int64_t i
    result = [(samples.entries[i].id, samples.entries[i].time) for i in range(samples.count)]
    samples.count = 0
    return result


def bond_flows(Tables tables not None, uint64_t address, int64_t now_ms, *, int64_t idle_ms, int away=-1):
    """Flows by slot, after those were forgotten that are idle for `idle_ms`; one flow of slot `away`
    is made to choose anew. KeyError: no such peer."""
    cdef zt_bond *bond = tables.peer(address).bond
    cdef uint32_t[BOND_SLOTS] counts
    memset(counts, 0, sizeof(counts))
    if bond == NULL:
        return []
    bond_sweep(bond, now_ms, idle_ms, away, counts)
    return [counts[i] for i in range(bond.slots)]


def flow_of(const uint8_t[::1] payload not None, uint16_t ethertype):
    """The flow of a frame with this payload (behind the Ethernet header)."""
    cdef uint8_t nothing = 0
    return bond_flow(&payload[0] if payload.shape[0] else &nothing, <uint32_t>payload.shape[0], ethertype)
