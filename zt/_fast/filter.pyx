# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Network rules: compiled once per config, evaluated per frame without the GIL (ch. 04, 8).

This module turns rule tables and credentials into the structs of `kernels/filter.h`, owns them, and
lets Python judge single frames. The evaluation itself is `kernels/filter.c`.
"""

from typing import NamedTuple

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

MAX_BASE_RULES = 1024
MAX_CAPABILITIES = 128
MAX_CAPABILITY_RULES = 64
MAX_TAGS = 128

# Verdict.reason
ACCEPTED = ZT_ACCEPTED
DROPPED = ZT_DROPPED
UNMATCHED = ZT_UNMATCHED
REDIRECTED = ZT_REDIRECTED


class Copy(NamedTuple):
    """An EXT_FRAME that a verdict asks for: the first `length` bytes of the payload."""

    address: int
    length: int
    flags: int


class Verdict(NamedTuple):
    """What the filter says of a frame.

    `result`: 0 no, 1 yes, 2 yes and past the MAC checks of ch. 04, 11.2. `copies` are to be sent
    in this order whatever the result. `reason`: ACCEPTED, DROPPED, UNMATCHED or REDIRECTED."""

    result: int
    reason: int
    copies: tuple


class Trace(NamedTuple):
    """A verdict with the rule log of ch. 04, 15: 512 bytes for the base rules, and the same for the
    capability that decided, if one did."""

    verdict: Verdict
    base: bytes
    capability: bytes | None
    capability_id: int | None


# -- compiling -----------------------------------------------------------------------------------

cdef bint compile_rules(zt_rules *rules, bytes table, uint32_t limit) except? True:
    """Compiles a rule table (8.1), at most `limit` entries. Returns whether it is per-segment.

    Operands are read at their nominal offsets whatever the declared length says; then the declared
    length counts. ValueError where that runs past the end of the table."""
    cdef const uint8_t *data = table
    cdef Py_ssize_t size = len(table), at = 0
    cdef uint32_t count = 0, i
    cdef bint per_segment = False
    cdef zt_rule *rule
    while at < size and count < limit:
        if at + 2 > size:
            raise ValueError("the rule table ends within an entry")
        at += 2 + data[at + 1]
        count += 1
    if count == 0:
        return False
    rules.rules = <zt_rule *> calloc(count, sizeof(zt_rule))
    if rules.rules == NULL:
        raise MemoryError
    rules.count = count
    at = 0
    for i in range(count):
        rule = &rules.rules[i]
        rule.type = data[at] & <uint8_t> ZT_RULE_TYPE
        rule.bits = data[at] & <uint8_t> (ZT_RULE_INVERT | ZT_RULE_OR)
        if at + 2 + max(zt_rule_size(rule.type), <int> data[at + 1]) > size:
            raise ValueError("the rule table ends within an entry")
        zt_rule_compile(rule, data + at + 2)
        rules.reads_headers = rules.reads_headers or zt_rule_reads_headers(rule)
        per_segment = per_segment or zt_rule_per_segment(rule)
        at += 2 + data[at + 1]
    zt_rules_link(rules)
    return per_segment


cdef bint compile_credentials(
    zt_credentials *side, object capabilities, object tags, object things
) except? True:
    """Fills one side's credentials. Returns whether a capability is per-segment."""
    cdef list entries = sorted(dict(capabilities).items())
    cdef uint32_t i
    cdef bint per_segment = False
    if len(entries) > MAX_CAPABILITIES:
        raise ValueError("too many capabilities")
    side.capabilities = <zt_rules *> calloc(len(entries) + 1, sizeof(zt_rules))
    if side.capabilities == NULL:
        raise MemoryError
    side.capability_count = <uint32_t> len(entries)
    for i in range(side.capability_count):
        side.capabilities[i].id, table = entries[i]
        if compile_rules(&side.capabilities[i], table, MAX_CAPABILITY_RULES):
            per_segment = True

    entries = sorted(dict(tags).items())
    if len(entries) > MAX_TAGS:
        raise ValueError("too many tags")
    side.tags = <zt_tag *> calloc(len(entries) + 1, sizeof(zt_tag))
    if side.tags == NULL:
        raise MemoryError
    side.tag_count = <uint32_t> len(entries)
    for i in range(side.tag_count):
        side.tags[i].id, side.tags[i].value = entries[i]

    compile_things(side, list(things))
    return per_segment


cdef int compile_things(zt_credentials *side, list things) except -1:
    """Sorts owned things by kind (7.5). Unknown kinds own nothing."""
    cdef bytes value
    cdef const uint8_t *data
    side.macs = <uint64_t *> calloc(len(things) + 1, sizeof(uint64_t))
    side.ipv4 = <uint32_t *> calloc(len(things) + 1, sizeof(uint32_t))
    side.ipv6 = <uint64_t *> calloc(len(things) + 1, 2 * sizeof(uint64_t))
    if side.macs == NULL or side.ipv4 == NULL or side.ipv6 == NULL:
        raise MemoryError
    for kind, value in things:
        data = value
        if kind == 1 and len(value) >= 6:
            side.macs[side.mac_count] = int.from_bytes(value[:6], "big")
            side.mac_count += 1
        elif kind == 2 and len(value) >= 4:
            memcpy(&side.ipv4[side.ipv4_count], data, 4)
            side.ipv4_count += 1
        elif kind == 3 and len(value) >= 16:
            memcpy(&side.ipv6[2 * side.ipv6_count], data, 16)
            side.ipv6_count += 1
    return 0


cdef void free_credentials(zt_credentials *side) noexcept:
    cdef uint32_t i
    for i in range(side.capability_count):
        free(side.capabilities[i].rules)
    free(side.capabilities)
    free(side.tags)
    free(side.macs)
    free(side.ipv4)
    free(side.ipv6)


# -- the objects ---------------------------------------------------------------------------------

cdef class Remote:
    """A member's credentials that are usable under the current config, as the filter needs them.

    `capabilities`: (ID, rule table), `tags`: (ID, value), `things`: (kind, value) of its
    certificates of ownership (ch. 04, 7.5). ValueError: a malformed rule table, too many."""

    def __cinit__(self, *, capabilities=(), tags=(), things=()):
        self.per_segment = compile_credentials(&self.credentials, capabilities, tags, things)

    def __dealloc__(self):
        free_credentials(&self.credentials)


cdef class Program:
    """Our side of one network config, compiled.

    `address` is ours, `rules` the base rule table as on the wire (ch. 04, 8.1), `capabilities`,
    `tags` and `things` as for `Remote`; `exempt`: up to two IPv6 prefixes (whole bytes) whose
    sources count as authenticated inbound (8.6); `unsupported`: the result of unknown matches.
    ValueError: a malformed rule table, too many of anything."""

    def __cinit__(
        self, uint64_t address, bytes rules not None, *,
        capabilities=(), tags=(), things=(), exempt=(), bint unsupported=False,
    ):
        cdef int i = 0
        cdef bytes prefix
        self.program.address = address
        self.program.unsupported = unsupported
        self.per_segment = compile_rules(&self.program.base, rules, MAX_BASE_RULES)
        if compile_credentials(&self.program.own, capabilities, tags, things):
            self.per_segment = True
        for prefix in exempt:
            if i == 2 or len(prefix) > 16:
                raise ValueError("too many exempt prefixes")
            memcpy(self.program.exempt[i], <const uint8_t *> prefix, len(prefix))
            self.program.exempt_length[i] = <uint8_t> len(prefix)
            i += 1

    def __dealloc__(self):
        free(self.program.base.rules)
        free_credentials(&self.program.own)

    def outbound(
        self, uint64_t dest, uint64_t source_mac, uint64_t dest_mac, uint16_t ethertype,
        const uint8_t[::1] payload not None, Remote remote=None, *,
        uint16_t vlan=0, bint no_tee=False, uint64_t random=1, bint trace=False,
    ):
        """Judges a frame of ours to the member `dest`, 0: not known yet (ch. 04, 8.9)."""
        cdef zt_frame frame
        fill(&frame, self.program.address, dest, source_mac, dest_mac, ethertype, vlan, payload)
        return judge(self, remote, &frame, False, no_tee, random, trace)

    def inbound(
        self, uint64_t source, uint64_t source_mac, uint64_t dest_mac, uint16_t ethertype,
        const uint8_t[::1] payload not None, Remote remote=None, *,
        uint16_t vlan=0, uint64_t random=1, bint trace=False,
    ):
        """Judges a frame from the member `source` (ch. 04, 8.10)."""
        cdef zt_frame frame
        fill(&frame, source, self.program.address, source_mac, dest_mac, ethertype, vlan, payload)
        return judge(self, remote, &frame, True, False, random, trace)

    def repeat(
        self, int times, uint64_t dest, uint64_t source_mac, uint64_t dest_mac, uint16_t ethertype,
        const uint8_t[::1] payload not None, Remote remote=None,
    ):
        """Judges one outbound frame `times` times, as the switch does, and returns the sum of the
        results: for measuring."""
        cdef zt_frame frame
        cdef zt_verdict verdict
        cdef const zt_credentials *side = NULL if remote is None else &remote.credentials
        cdef uint64_t random = 1, total = 0
        cdef int i
        fill(&frame, self.program.address, dest, source_mac, dest_mac, ethertype, 0, payload)
        with nogil:
            for i in range(times):
                zt_filter_outbound(&self.program, side, &frame, False, &random, &verdict, NULL)
                total += verdict.result
        return total


cdef uint8_t NOTHING = 0


cdef void fill(
    zt_frame *frame, uint64_t source, uint64_t dest, uint64_t source_mac, uint64_t dest_mac,
    uint16_t ethertype, uint16_t vlan, const uint8_t[::1] payload,
):
    frame.payload = &payload[0] if payload.shape[0] else &NOTHING
    frame.length = <uint32_t> payload.shape[0]
    frame.ethertype = ethertype
    frame.vlan = vlan
    frame.source_mac = source_mac
    frame.dest_mac = dest_mac
    frame.source = source
    frame.dest = dest


cdef object judge(
    Program program, Remote remote, const zt_frame *frame,
    bint inbound, bint no_tee, uint64_t random, bint trace,
):
    cdef zt_verdict found
    cdef zt_log log
    cdef zt_log *wanted = &log if trace else NULL
    cdef const zt_credentials *side = NULL if remote is None else &remote.credentials
    cdef int i
    if inbound:
        zt_filter_inbound(&program.program, side, frame, &random, &found, wanted)
    else:
        zt_filter_outbound(&program.program, side, frame, no_tee, &random, &found, wanted)
    copies = []
    for i in range(found.copies):
        copies.append(Copy(found.copy[i].address, found.copy[i].length, found.copy[i].flags))
    verdict = Verdict(found.result, found.reason, tuple(copies))
    if not trace:
        return verdict
    if not log.matched:
        return Trace(verdict, (<const uint8_t *> log.base)[:512], None, None)
    return Trace(
        verdict, (<const uint8_t *> log.base)[:512], (<const uint8_t *> log.capability)[:512],
        log.capability_id,
    )
