"""The rules engine (ch. 04, 8) for C callers: see `kernels/filter.h`.

A `Program` is our side of one network config, a `Remote` what is known of one member. Both are
immutable after construction; the structs inside may be read without the GIL, by any thread, for as
long as the caller keeps the object alive.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "filter.h" nogil:
    enum:
        ZT_RULE_INVERT
        ZT_RULE_OR
        ZT_RULE_TYPE
        ZT_ACCEPTED
        ZT_DROPPED
        ZT_UNMATCHED
        ZT_REDIRECTED

    ctypedef struct zt_rule:
        uint16_t skip
        uint8_t type
        uint8_t bits

    ctypedef struct zt_rules:
        zt_rule *rules
        uint32_t count
        uint32_t id
        bint reads_headers

    ctypedef struct zt_tag:
        uint32_t id
        uint32_t value

    ctypedef struct zt_credentials:
        zt_rules *capabilities
        zt_tag *tags
        uint64_t *macs
        uint32_t *ipv4
        uint64_t *ipv6
        uint32_t capability_count
        uint32_t tag_count
        uint32_t mac_count
        uint32_t ipv4_count
        uint32_t ipv6_count

    ctypedef struct zt_program:
        zt_rules base
        zt_credentials own
        uint64_t address
        uint8_t[2][16] exempt
        uint8_t[2] exempt_length
        bint unsupported

    ctypedef struct zt_frame:
        const uint8_t *payload
        uint32_t length
        uint16_t ethertype
        uint16_t vlan
        uint64_t source_mac
        uint64_t dest_mac
        uint64_t source
        uint64_t dest

    ctypedef struct zt_copy:
        uint64_t address
        uint32_t length
        uint8_t flags

    ctypedef struct zt_verdict:
        uint8_t result
        uint8_t reason
        uint8_t copies
        zt_copy[3] copy

    ctypedef struct zt_log:
        uint8_t[512] base
        uint8_t[512] capability
        uint32_t capability_id
        bint matched

    int zt_rule_size(int type) noexcept
    void zt_rule_compile(zt_rule *rule, const uint8_t *data) noexcept
    void zt_rules_link(zt_rules *rules) noexcept
    bint zt_rule_reads_headers(const zt_rule *rule) noexcept
    bint zt_rule_per_segment(const zt_rule *rule) noexcept
    void zt_filter_outbound(
        const zt_program *program, const zt_credentials *remote, const zt_frame *frame,
        bint no_tee, uint64_t *random, zt_verdict *verdict, zt_log *log,
    ) noexcept
    void zt_filter_inbound(
        const zt_program *program, const zt_credentials *remote, const zt_frame *frame,
        uint64_t *random, zt_verdict *verdict, zt_log *log,
    ) noexcept


cdef class Program:
    cdef zt_program program
    cdef readonly bint per_segment


cdef class Remote:
    cdef zt_credentials credentials
    cdef readonly bint per_segment
