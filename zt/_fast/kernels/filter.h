/* The rules engine (ch. 04, 8): what compiled rules look like, and their evaluation.
 *
 * A program is our side of one network config, credentials are what is known of one member. Both
 * are read-only here, may be read by any number of threads, and belong to the caller. */
#ifndef ZT_FILTER_H
#define ZT_FILTER_H

#include <stdbool.h>
#include <stdint.h>

enum {
    ZT_RULE_INVERT = 0x80,
    ZT_RULE_OR = 0x40,
    ZT_RULE_TYPE = 0x3f,
    /* in compiled rules */
    ZT_RULE_ASIDE = 0x01,  /* TEE, WATCH or REDIRECT */
    ZT_RULE_RESUME = 0x02, /* a new set begins at `skip` */
};

enum zt_rule_type {
    ZT_DROP = 0,
    ZT_ACCEPT = 1,
    ZT_TEE = 2,
    ZT_WATCH = 3,
    ZT_REDIRECT = 4,
    ZT_BREAK = 5,
    ZT_PRIORITY = 6,
    ZT_LAST_ACTION = 15,
    ZT_SOURCE = 24,
    ZT_DEST = 25,
    ZT_VLAN_ID = 26,
    ZT_VLAN_PCP = 27,
    ZT_VLAN_DEI = 28,
    ZT_MAC_SOURCE = 29,
    ZT_MAC_DEST = 30,
    ZT_IPV4_SOURCE = 31,
    ZT_IPV4_DEST = 32,
    ZT_IPV6_SOURCE = 33,
    ZT_IPV6_DEST = 34,
    ZT_IP_TOS = 35,
    ZT_IP_PROTOCOL = 36,
    ZT_ETHERTYPE = 37,
    ZT_ICMP = 38,
    ZT_SOURCE_PORT = 39,
    ZT_DEST_PORT = 40,
    ZT_CHARACTERISTICS = 41,
    ZT_FRAME_SIZE = 42,
    ZT_RANDOM = 43,
    ZT_TAGS_DIFFERENCE = 44,
    ZT_TAGS_AND = 45,
    ZT_TAGS_OR = 46,
    ZT_TAGS_XOR = 47,
    ZT_TAGS_EQUAL = 48,
    ZT_TAG_SENDER = 49,
    ZT_TAG_RECEIVER = 50,
    ZT_INTEGER_RANGE = 51,
};

/* Why a verdict is what it is, and so which counter it belongs to. */
enum zt_reason {
    ZT_ACCEPTED = 0,   /* accepted */
    ZT_DROPPED = 1,    /* an explicit DROP: the original counts nothing */
    ZT_UNMATCHED = 2,  /* nothing accepted it: dropped */
    ZT_REDIRECTED = 3, /* sent elsewhere instead: accepted */
};

/* One compiled entry. What the operands mean depends on the type: see `zt_rule_compile`. */
typedef struct {
    uint64_t a, b;
    uint32_t c;
    uint16_t skip; /* of a match: where to go on once the set failed */
    uint8_t type;
    uint8_t bits; /* ZT_RULE_... */
} zt_rule;

typedef struct {
    zt_rule *rules;
    uint32_t count;
    uint32_t id;        /* of the capability; 0 for base rules */
    bool reads_headers; /* some match looks at IP headers */
} zt_rules;

typedef struct {
    uint32_t id, value;
} zt_tag;

typedef struct {
    zt_rules *capabilities; /* by ascending ID */
    zt_tag *tags;           /* by ascending ID */
    uint64_t *macs;         /* owned, says a certificate of ownership */
    uint32_t *ipv4;         /* as loaded from memory */
    uint64_t *ipv6;         /* pairs, as loaded from memory */
    uint32_t capability_count, tag_count, mac_count, ipv4_count, ipv6_count;
} zt_credentials;

typedef struct {
    zt_rules base;
    zt_credentials own;
    uint64_t address;         /* ours */
    uint8_t exempt[2][16];    /* IPv6 prefixes whose sources count as authenticated (8.6) */
    uint8_t exempt_length[2]; /* bytes, 0 = none */
    bool unsupported;         /* result of a match of unknown type (config flag 0x08) */
} zt_program;

typedef struct {
    const uint8_t *payload; /* borrowed: what follows the 14-byte Ethernet header */
    uint32_t length;
    uint16_t ethertype;
    uint16_t vlan; /* VLAN ID, in practice 0 */
    uint64_t source_mac, dest_mac;
    uint64_t source, dest; /* ZeroTier addresses; dest 0 = unknown (first pass outbound) */
} zt_frame;

typedef struct {
    uint64_t address;
    uint32_t length; /* leading bytes of the payload */
    uint8_t flags;   /* of the EXT_FRAME to send (8.10) */
} zt_copy;

typedef struct {
    uint8_t result; /* 0 no, 1 yes, 2 yes and past the MAC checks (inbound only) */
    uint8_t reason; /* zt_reason */
    uint8_t copies;
    zt_copy copy[3]; /* a capability's, the base rules', the redirected frame; in that order */
} zt_verdict;

/* Which rules were looked at and how they came out (15). */
typedef struct {
    uint8_t base[512];
    uint8_t capability[512];
    uint32_t capability_id;
    bool matched; /* a capability decided: the two fields before are valid */
} zt_log;

/* A big-endian number of up to 8 bytes. */
static inline uint64_t zt_load(const uint8_t *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value = value << 8 | bytes[i];
    return value;
}

/* Bytes of data that an entry of this type has on the wire; -1 for types unknown to us. */
int zt_rule_size(int type);

/* Decodes an entry's data (`zt_rule_size` bytes of it) into its operands. Type and bits are set. */
void zt_rule_compile(zt_rule *rule, const uint8_t *data);

/* Sets where each match goes on when its set has failed: at the next OR match or action that could
 * change anything, or past an action that could not. */
void zt_rules_link(zt_rules *rules);

/* Whether an entry looks at IP headers. */
bool zt_rule_reads_headers(const zt_rule *rule);

/* Whether an entry can tell the segments of one TSO burst apart, or copies frames. */
bool zt_rule_per_segment(const zt_rule *rule);

/* Outbound (8.9) and inbound (8.10). `remote` may be NULL (no membership known), `log` too.
 * `random` is the caller's own generator state, not 0: each MATCH_RANDOM takes its lower 32 bits
 * and steps it. */
void zt_filter_outbound(
    const zt_program *program, const zt_credentials *remote, const zt_frame *frame, bool no_tee,
    uint64_t *random, zt_verdict *verdict, zt_log *log);
void zt_filter_inbound(
    const zt_program *program, const zt_credentials *remote, const zt_frame *frame,
    uint64_t *random, zt_verdict *verdict, zt_log *log);

#endif
