/* Evaluation of compiled network rules (ch. 04, 8).
 *
 * One walk over an array of fixed-size entries. When a set of matches has failed, the walk jumps to
 * the next entry that can change anything. IP headers are parsed at most once per frame, and the
 * sender is authenticated only if a rule asks for it. */
#include "filter.h"

#include <string.h>

enum { IPV4 = 0x0800, ARP = 0x0806, IPV6 = 0x86dd };

/* What one match came to: 0 and 1 are subject to NOT, these are not (8.3). */
enum { HARD_NO = 2, HARD_YES = 3 };

/* What one list came to. */
enum outcome { NO_MATCH, REFUSED, ACCEPTED, SUPER_ACCEPTED, REDIRECTED };

/* Characteristics (8.5). */
#define INBOUND 0x8000000000000000ull
#define MULTICAST 0x4000000000000000ull
#define BROADCAST 0x2000000000000000ull
#define IP_AUTHENTIC 0x1000000000000000ull
#define MAC_AUTHENTIC 0x0800000000000000ull
#define TCP_BITS 0x0fffull

/* A frame and what was found out about it so far. */
typedef struct {
    const zt_frame *frame;
    const zt_program *program;
    const zt_credentials *remote;
    uint64_t *random;
    uint64_t authentic; /* characteristics bits, once known */
    uint32_t l4;        /* offset of what follows the IP headers */
    uint32_t source_ip, dest_ip; /* family 4 */
    int family;                  /* 4, 6, or 0: neither, or too short */
    int protocol;                /* IP protocol, -1 none */
    int port[2];                 /* source, destination; -1 none */
    bool inbound, parsed, authentic_known;
} view;

/* -- looking at a frame --------------------------------------------------------------------- */

/* The protocol after an IPv6 header and its extensions, and where it begins; -1 if the headers run
 * past the end (8.4). Fragment, ESP and AH headers are not entered: they are the protocol. */
static int walk_ipv6(const uint8_t *p, uint32_t length, uint32_t *l4) {
    uint32_t at = 40;
    int protocol = p[6];
    while (protocol == 0 || protocol == 43 || protocol == 60 || protocol == 135) {
        if (at + 8 > length) return -1;
        protocol = p[at];
        at += 8 + 8 * (uint32_t)p[at + 1];
    }
    *l4 = at;
    return at > length ? -1 : protocol;
}

/* Looks at the IP headers and ports. A port needs one byte more than itself to be there. */
static void parse(view *v) {
    const uint8_t *p = v->frame->payload;
    const uint32_t length = v->frame->length;
    v->parsed = true;
    if (v->frame->ethertype == IPV4 && length >= 20) {
        v->family = 4;
        v->source_ip = (uint32_t)zt_load(p + 12, 4);
        v->dest_ip = (uint32_t)zt_load(p + 16, 4);
        v->protocol = p[9];
        v->l4 = 4 * (p[0] & 15);
    } else if (v->frame->ethertype == IPV6 && length >= 40) {
        v->family = 6;
        v->protocol = walk_ipv6(p, length, &v->l4);
    }
    switch (v->protocol) {
        case 6:
        case 17:
        case 0x84:
        case 0x88:
            if (length > v->l4 + 4) {
                v->port[0] = (int)zt_load(p + v->l4, 2);
                v->port[1] = (int)zt_load(p + v->l4 + 2, 2);
            }
    }
}

static bool owns_ipv4(const zt_credentials *side, const uint8_t *ip) {
    uint32_t value;
    memcpy(&value, ip, 4);
    for (uint32_t i = 0; i < side->ipv4_count; i++)
        if (side->ipv4[i] == value) return true;
    return false;
}

static bool owns_ipv6(const zt_credentials *side, const uint8_t *ip) {
    for (uint32_t i = 0; i < side->ipv6_count; i++)
        if (!memcmp(side->ipv6 + 2 * i, ip, 16)) return true;
    return false;
}

static bool owns_mac(const zt_credentials *side, uint64_t mac) {
    for (uint32_t i = 0; i < side->mac_count; i++)
        if (side->macs[i] == mac) return true;
    return false;
}

/* Which of the sender's IP and MAC are backed by certificates of ownership (8.6). */
static uint64_t authenticate(const view *v) {
    const zt_frame *frame = v->frame;
    const zt_program *program = v->program;
    const zt_credentials *side = v->inbound ? v->remote : &program->own;
    const uint8_t *p = frame->payload, *ipv4 = NULL, *ipv6 = NULL;
    uint64_t found = 0;
    if (frame->ethertype == IPV4 && frame->length >= 20) {
        ipv4 = p + 12;
    } else if (frame->ethertype == ARP && frame->length >= 28) {
        ipv4 = p + 14;
    } else if (frame->ethertype == IPV6 && frame->length >= 40) {
        ipv6 = p + 8;
        if (frame->length >= 64 && p[6] == 0x3a) {
            if (p[40] == 0x87) { /* neighbor solicitation: nothing is claimed yet */
                found = IP_AUTHENTIC;
                ipv6 = NULL;
            } else if (p[40] == 0x88) { /* advertisement: the address it speaks for */
                ipv6 = p + 48;
            }
        }
    }
    if (side) {
        if ((ipv4 && owns_ipv4(side, ipv4)) || (ipv6 && owns_ipv6(side, ipv6)))
            found |= IP_AUTHENTIC;
        if (owns_mac(side, frame->source_mac)) found |= MAC_AUTHENTIC;
    }
    if (v->inbound && ipv6)
        for (int i = 0; i < 2; i++)
            if (program->exempt_length[i] &&
                !memcmp(program->exempt[i], ipv6, program->exempt_length[i]))
                found |= IP_AUTHENTIC;
    return found;
}

/* The bits of 8.5; those outside of the mask may be missing. */
static uint64_t characteristics(view *v, uint64_t mask) {
    const zt_frame *frame = v->frame;
    uint64_t found = v->inbound ? INBOUND : 0;
    if (frame->dest_mac & 0x010000000000ull) {
        found |= MULTICAST;
        if (frame->dest_mac == 0xffffffffffffull) found |= BROADCAST;
    }
    if (mask & (IP_AUTHENTIC | MAC_AUTHENTIC)) {
        if (!v->authentic_known) {
            v->authentic = authenticate(v);
            v->authentic_known = true;
        }
        found |= v->authentic;
    }
    if (mask & TCP_BITS && v->protocol == 6) {
        const uint8_t *p = frame->payload;
        const uint32_t at = v->l4 + 12;
        if (v->family == 6) {
            if (frame->length > at + 2) found |= zt_load(p + at, 2) & TCP_BITS;
        } else { /* missing bytes count as 0 (Q9) */
            if (frame->length > at) found |= (p[at] & 15ull) << 8;
            if (frame->length > at + 1) found |= p[at + 1];
        }
    }
    return found;
}

/* The integer that an INTEGER_RANGE looks at; 0 past the end of the frame (8.8). */
static uint64_t integer(const zt_frame *frame, uint32_t operand) {
    const uint32_t bits = (operand & 63) + 1, count = (bits + 7) / 8;
    uint32_t start = operand >> 8;
    uint64_t value = 0;
    if (operand & 0x80) { /* little-endian, the high bits */
        if (start + count > frame->length) return 0;
        for (uint32_t i = 0; i < count; i++)
            value |= (uint64_t)frame->payload[start + i] << (8 * i);
        return value >> (8 * count - bits);
    }
    start += 8 - count;
    if (start + count > frame->length) return 0;
    value = zt_load(frame->payload + start, (int)count);
    return bits == 64 ? value : value & ((1ull << bits) - 1);
}

static const zt_tag *find_tag(const zt_credentials *side, uint32_t id) {
    if (!side) return NULL;
    uint32_t low = 0, high = side->tag_count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (side->tags[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < side->tag_count && side->tags[low].id == id ? &side->tags[low] : NULL;
}

/* -- matches -------------------------------------------------------------------------------- */

/* Types 44 to 50 (8.7). Sets `skip` where the other side has to decide. */
static int match_tags(const view *v, const zt_rule *rule, bool super, bool *skip) {
    const zt_tag *ours = find_tag(&v->program->own, rule->c);
    const zt_tag *theirs = find_tag(v->remote, rule->c);
    const uint32_t value = (uint32_t)rule->a;
    if (rule->type == ZT_TAG_SENDER || rule->type == ZT_TAG_RECEIVER) {
        const bool sender = rule->type == ZT_TAG_SENDER;
        if (super) {
            *skip = true;
            return HARD_YES;
        }
        if (sender != v->inbound) return ours ? ours->value == value : HARD_NO;
        if (theirs) return theirs->value == value;
        if (sender) return HARD_NO;
        *skip = true;
        return HARD_YES;
    }
    if (!ours) return HARD_NO;
    if (!theirs) {
        if (v->inbound && !super) return HARD_NO;
        *skip = true;
        return HARD_YES;
    }
    const uint32_t l = ours->value, r = theirs->value;
    switch (rule->type) {
        case ZT_TAGS_DIFFERENCE:
            return (l > r ? l - r : r - l) <= value;
        case ZT_TAGS_AND:
            return (l & r) == value;
        case ZT_TAGS_OR:
            return (l | r) == value;
        case ZT_TAGS_XOR:
            return (l ^ r) == value;
        default:
            return l == value && r == value;
    }
}

/* The upper `bits` (0..64) of a word. */
static inline uint64_t prefix_mask(uint32_t bits) { return bits ? ~0ull << (64 - bits) : 0; }

/* The masked address against the rule's as written: host bits there never match (8.3). */
static int match_ipv6(const zt_rule *rule, const uint8_t *ip) {
    const uint32_t high = rule->c < 64 ? rule->c : 64;
    return (zt_load(ip, 8) & prefix_mask(high)) == rule->a &&
           (zt_load(ip + 8, 8) & prefix_mask(rule->c - high)) == rule->b;
}

static int match_icmp(const view *v, const zt_rule *rule) {
    if (v->family == 0 || v->protocol != (v->family == 4 ? 1 : 0x3a)) return HARD_NO;
    if (v->frame->length < v->l4 + 2) return HARD_NO;
    const uint8_t *p = v->frame->payload + v->l4;
    if (rule->a != p[0]) return HARD_NO;
    return rule->c & 1 ? rule->b == p[1] : HARD_YES;
}

static int match_port(const view *v, const zt_rule *rule, int port) {
    if (v->protocol < 0) return HARD_NO;
    if (port < 0 || (port == 0 && v->family == 6)) return 0;
    return rule->a <= (uint64_t)port && (uint64_t)port <= rule->b;
}

static int match_tos(const view *v, const zt_rule *rule) {
    if (v->family == 0) return HARD_NO;
    const uint8_t *p = v->frame->payload;
    const uint64_t tos = v->family == 4 ? p[1] : (uint64_t)((p[0] & 15) << 4 | p[1] >> 4);
    return rule->b <= (tos & rule->a) && (tos & rule->a) <= rule->c;
}

static int match_random(uint64_t *state, uint64_t limit) {
    const uint64_t drawn = *state & 0xffffffffull;
    *state ^= *state << 13; /* xorshift64: sampling needs nothing better */
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return drawn <= limit;
}

/* 0, 1, HARD_NO or HARD_YES (8.3). */
static inline int match(view *v, const zt_rule *rule, bool super, bool *skip) {
    const zt_frame *frame = v->frame;
    const uint8_t *p = frame->payload;
    switch (rule->type) {
        case ZT_SOURCE:
            return rule->a == frame->source;
        case ZT_DEST:
            return rule->a == frame->dest;
        case ZT_VLAN_ID:
            return rule->a == frame->vlan;
        case ZT_VLAN_PCP:
        case ZT_VLAN_DEI:
            return rule->a == 0;
        case ZT_MAC_SOURCE:
            return rule->a == frame->source_mac;
        case ZT_MAC_DEST:
            return rule->a == frame->dest_mac;
        case ZT_IPV4_SOURCE:
            return v->family == 4 ? (v->source_ip & rule->b) == rule->a : HARD_NO;
        case ZT_IPV4_DEST:
            return v->family == 4 ? (v->dest_ip & rule->b) == rule->a : HARD_NO;
        case ZT_IPV6_SOURCE:
            return v->family == 6 ? match_ipv6(rule, p + 8) : HARD_NO;
        case ZT_IPV6_DEST:
            return v->family == 6 ? match_ipv6(rule, p + 24) : HARD_NO;
        case ZT_IP_TOS:
            return match_tos(v, rule);
        case ZT_IP_PROTOCOL:
            return v->protocol >= 0 ? rule->a == (uint64_t)v->protocol : HARD_NO;
        case ZT_ETHERTYPE:
            return rule->a == frame->ethertype;
        case ZT_ICMP:
            return match_icmp(v, rule);
        case ZT_SOURCE_PORT:
            return match_port(v, rule, v->port[0]);
        case ZT_DEST_PORT:
            return match_port(v, rule, v->port[1]);
        case ZT_CHARACTERISTICS:
            return (characteristics(v, rule->a) & rule->a) != 0;
        case ZT_FRAME_SIZE:
            return rule->a <= frame->length && frame->length <= rule->b;
        case ZT_RANDOM:
            return match_random(v->random, rule->a);
        case ZT_TAGS_DIFFERENCE ... ZT_TAG_RECEIVER:
            return match_tags(v, rule, super, skip);
        case ZT_INTEGER_RANGE: {
            const uint64_t value = integer(frame, rule->c);
            return rule->a <= value && value <= rule->b;
        }
        default:
            return v->program->unsupported;
    }
}

/* -- lists ---------------------------------------------------------------------------------- */

static inline void log_rule(uint8_t *log, uint32_t i, uint32_t bits) {
    log[i >> 1] |= (uint8_t)(bits << (i & 1 ? 4 : 0));
}

/* What an action without a match of its own comes to in a set that holds; -1: the walk goes on. */
static inline int act(
    const view *v, const zt_rule *rule, bool super, bool *skip, uint64_t *dest, zt_copy *copy) {
    const uint64_t us = v->program->address, target = rule->a;
    switch (rule->type) {
        case ZT_DROP:
            if (!*skip) return REFUSED;
            *skip = false;
            return -1;
        case ZT_ACCEPT:
            return super ? SUPER_ACCEPTED : ACCEPTED;
        case ZT_PRIORITY:
            return ACCEPTED;
        case ZT_BREAK:
            return NO_MATCH;
        case ZT_TEE:
        case ZT_WATCH:
        case ZT_REDIRECT:
            if (target == v->frame->source) return -1;
            if (target == us) return v->inbound ? SUPER_ACCEPTED : -1;
            if (target == *dest) return -1;
            if (rule->type == ZT_REDIRECT) {
                *dest = target;
                return REDIRECTED;
            }
            copy->address = target;
            copy->flags = rule->type;
            copy->length = rule->c && rule->c < v->frame->length ? rule->c : v->frame->length;
            return -1;
        default:
            return -1;
    }
}

/* One rule list (8.2). May set the destination, and the copy: address 0 = none; its flags hold the
 * type of the action. */
static enum outcome evaluate(
    view *v, const zt_rules *list, uint64_t *dest, zt_copy *copy, uint8_t *log) {
    bool set = true, skip = false, super = false;
    copy->address = 0;
    if (list->reads_headers && !v->parsed) parse(v);
    for (uint32_t i = 0; i < list->count;) {
        const zt_rule *rule = &list->rules[i];
        if (rule->type <= ZT_LAST_ACTION) {
            if (set) {
                const int outcome = act(v, rule, super, &skip, dest, copy);
                if (outcome >= 0) return (enum outcome)outcome;
            } else if (rule->bits & ZT_RULE_ASIDE && v->inbound && rule->a == v->program->address) {
                super = true;
            }
            set = true;
            i++;
            continue;
        }
        const bool or = rule->bits & ZT_RULE_OR;
        if (!set && !or) { /* only with a log: else such entries are jumped over */
            log_rule(log, i++, 1);
            continue;
        }
        const int found = match(v, rule, super, &skip);
        if (log) log_rule(log, i, ((found & 1u) + 1) << 2 | (set + 1u));
        const bool value = (found ^ (rule->bits >> 7 & ~(found >> 1))) & 1;
        set = or ? set | value : value;
        if (set || log) {
            i++;
        } else {
            i = rule->skip;
            set = rule->bits & ZT_RULE_RESUME;
        }
    }
    return NO_MATCH;
}

static void emit(zt_verdict *verdict, const zt_copy *copy, bool inbound) {
    if (!copy->address) return;
    zt_copy *out = &verdict->copy[verdict->copies++];
    *out = *copy;
    if (copy->flags == ZT_WATCH)
        out->flags = inbound ? 0x1c : 0x16;
    else
        out->flags = inbound ? 0x08 : 0x02;
}

/* Base rules, then the capabilities of the sending side, then copies and redirect (8.9, 8.10). */
static void judge(
    view *v, const zt_credentials *sender, bool no_tee, zt_verdict *verdict, zt_log *log) {
    const zt_frame *frame = v->frame;
    uint64_t dest = frame->dest;
    zt_copy base;
    verdict->result = 0;
    verdict->copies = 0;
    if (log) memset(log, 0, sizeof *log);
    enum outcome outcome = evaluate(v, &v->program->base, &dest, &base, log ? log->base : NULL);
    if (outcome == REFUSED) {
        verdict->reason = ZT_DROPPED;
        return;
    }
    for (uint32_t i = 0; outcome == NO_MATCH && sender && i < sender->capability_count; i++) {
        const zt_rules *capability = &sender->capabilities[i];
        zt_copy copy;
        dest = frame->dest;
        if (log) memset(log->capability, 0, sizeof log->capability);
        outcome = evaluate(v, capability, &dest, &copy, log ? log->capability : NULL);
        if (outcome == NO_MATCH || outcome == REFUSED) {
            outcome = NO_MATCH;
            continue;
        }
        if (log) {
            log->capability_id = capability->id;
            log->matched = true;
        }
        if (!no_tee) emit(verdict, &copy, v->inbound);
    }
    if (outcome == NO_MATCH) {
        verdict->reason = ZT_UNMATCHED;
        return;
    }
    if (!no_tee) emit(verdict, &base, v->inbound);
    if (outcome == REDIRECTED) {
        zt_copy *out = &verdict->copy[verdict->copies++];
        out->address = dest;
        out->length = frame->length;
        out->flags = v->inbound ? 0x0a : 0x04;
        verdict->reason = ZT_REDIRECTED;
        return;
    }
    verdict->reason = ZT_ACCEPTED;
    verdict->result = v->inbound && outcome == SUPER_ACCEPTED ? 2 : 1;
}

static view look(
    const zt_program *program, const zt_credentials *remote, const zt_frame *frame, bool inbound,
    uint64_t *random) {
    return (view){
        .frame = frame,
        .program = program,
        .remote = remote,
        .random = random,
        .protocol = -1,
        .port = {-1, -1},
        .inbound = inbound,
    };
}

void zt_filter_outbound(
    const zt_program *program, const zt_credentials *remote, const zt_frame *frame, bool no_tee,
    uint64_t *random, zt_verdict *verdict, zt_log *log) {
    view v = look(program, remote, frame, false, random);
    judge(&v, &program->own, no_tee, verdict, log);
}

void zt_filter_inbound(
    const zt_program *program, const zt_credentials *remote, const zt_frame *frame,
    uint64_t *random, zt_verdict *verdict, zt_log *log) {
    view v = look(program, remote, frame, true, random);
    judge(&v, remote, false, verdict, log);
}
