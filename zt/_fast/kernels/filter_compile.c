/* From rule entries on the wire to what filter.c evaluates (ch. 04, 8.1). */
#include "filter.h"

#define TCP_BITS 0x0fffull
#define TCP_PER_SEGMENT 0x0089ull /* CWR on the first segment only, PSH and FIN on the last */

int zt_rule_size(int type) {
    switch (type) {
        case ZT_DROP:
        case ZT_ACCEPT:
        case ZT_BREAK:
        case ZT_PRIORITY:
            return 0;
        case ZT_TEE:
        case ZT_WATCH:
        case ZT_REDIRECT:
            return 14;
        case ZT_VLAN_PCP:
        case ZT_VLAN_DEI:
        case ZT_IP_PROTOCOL:
            return 1;
        case ZT_VLAN_ID:
        case ZT_ETHERTYPE:
            return 2;
        case ZT_IP_TOS:
        case ZT_ICMP:
            return 3;
        case ZT_SOURCE_PORT:
        case ZT_DEST_PORT:
        case ZT_FRAME_SIZE:
        case ZT_RANDOM:
            return 4;
        case ZT_SOURCE:
        case ZT_DEST:
        case ZT_IPV4_SOURCE:
        case ZT_IPV4_DEST:
            return 5;
        case ZT_MAC_SOURCE:
        case ZT_MAC_DEST:
            return 6;
        case ZT_CHARACTERISTICS:
        case ZT_TAGS_DIFFERENCE ... ZT_TAG_RECEIVER:
            return 8;
        case ZT_IPV6_SOURCE:
        case ZT_IPV6_DEST:
            return 17;
        case ZT_INTEGER_RANGE:
            return 19;
        default:
            return -1;
    }
}

void zt_rule_compile(zt_rule *rule, const uint8_t *data) {
    rule->a = rule->b = rule->c = 0;
    switch (rule->type) {
        case ZT_TEE:
        case ZT_WATCH:
        case ZT_REDIRECT: /* target; length, 0 = all */
            rule->a = zt_load(data, 8) & 0xffffffffffull;
            rule->c = (uint32_t)zt_load(data + 12, 2);
            break;
        case ZT_IPV4_SOURCE:
        case ZT_IPV4_DEST: { /* network, mask */
            int bits = data[4] < 32 ? data[4] : 32;
            rule->b = 0xffffffffull << (32 - bits) & 0xffffffffull;
            rule->a = zt_load(data, 4) & rule->b;
            break;
        }
        case ZT_IPV6_SOURCE:
        case ZT_IPV6_DEST: /* two words; bits */
            rule->a = zt_load(data, 8);
            rule->b = zt_load(data + 8, 8);
            rule->c = data[16] < 128 ? data[16] : 128;
            break;
        case ZT_IP_TOS:
        case ZT_ICMP: /* the three bytes apart */
            rule->a = data[0];
            rule->b = data[1];
            rule->c = data[2];
            break;
        case ZT_SOURCE_PORT:
        case ZT_DEST_PORT:
        case ZT_FRAME_SIZE: /* first, last */
            rule->a = zt_load(data, 2);
            rule->b = zt_load(data + 2, 2);
            break;
        case ZT_TAGS_DIFFERENCE ... ZT_TAG_RECEIVER: /* value; tag ID */
            rule->a = zt_load(data + 4, 4);
            rule->c = (uint32_t)zt_load(data, 4);
            break;
        case ZT_INTEGER_RANGE: /* first, last (a 32-bit span, mod 2^64); index and format */
            rule->a = zt_load(data, 8);
            rule->b = rule->a + ((zt_load(data + 8, 8) - rule->a) & 0xffffffffull);
            rule->c = (uint32_t)zt_load(data + 16, 3);
            break;
        default: { /* a plain number */
            int size = zt_rule_size(rule->type);
            if (size > 0) rule->a = zt_load(data, size);
        }
    }
}

void zt_rules_link(zt_rules *rules) {
    uint32_t next = rules->count;
    bool resume = false;
    for (uint32_t i = rules->count; i-- > 0;) {
        zt_rule *rule = &rules->rules[i];
        if (rule->type == ZT_TEE || rule->type == ZT_WATCH || rule->type == ZT_REDIRECT) {
            rule->bits |= ZT_RULE_ASIDE;
            next = i;
            resume = false;
        } else if (rule->type <= ZT_LAST_ACTION) {
            next = i + 1;
            resume = true;
        } else {
            rule->skip = (uint16_t)next;
            if (resume) rule->bits |= ZT_RULE_RESUME;
            if (rule->bits & ZT_RULE_OR) {
                next = i;
                resume = false;
            }
        }
    }
}

bool zt_rule_reads_headers(const zt_rule *rule) {
    return (rule->type >= ZT_IPV4_SOURCE && rule->type <= ZT_DEST_PORT &&
            rule->type != ZT_ETHERTYPE) ||
           (rule->type == ZT_CHARACTERISTICS && rule->a & TCP_BITS);
}

bool zt_rule_per_segment(const zt_rule *rule) {
    switch (rule->type) {
        case ZT_CHARACTERISTICS:
            return rule->a & TCP_PER_SEGMENT;
        case ZT_TEE:
        case ZT_WATCH:
        case ZT_REDIRECT:
        case ZT_FRAME_SIZE:
        case ZT_RANDOM:
        case ZT_INTEGER_RANGE:
            return true;
        default:
            return false;
    }
}
