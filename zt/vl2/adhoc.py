"""Configurations that follow from the ID of an ad-hoc network (chapter 04, 3)."""

from zt.protocol import rules
from zt.protocol.address import SIXPLANE_BITS, Address, NetworkId, sixplane
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import NetworkConfig
from zt.protocol.rules import Rule, RuleType

MAX_DELTA_MS = 7200000
NDP_EMULATION = 0x04
IPV6 = 0x86DD
TCP_SYN = 0x02
TCP_ACK = 0x10


def accepts_ports(first: int, last: int) -> bytes:
    """IPv6 only; ICMP, UDP and TCP to these ports, and what belongs to other TCP connections."""
    return rules.encode(
        [
            Rule(RuleType.MATCH_ETHERTYPE, (IPV6,), not_=True),
            Rule(RuleType.ACTION_DROP),
            Rule(RuleType.MATCH_IP_PROTOCOL, (58,)),
            Rule(RuleType.ACTION_ACCEPT),
            Rule(RuleType.MATCH_IP_PROTOCOL, (17,)),
            Rule(RuleType.MATCH_IP_PROTOCOL, (6,), or_=True),
            Rule(RuleType.MATCH_IP_DEST_PORT_RANGE, (first, last)),
            Rule(RuleType.ACTION_ACCEPT),
            Rule(RuleType.MATCH_CHARACTERISTICS, (TCP_SYN,), not_=True),
            Rule(RuleType.ACTION_ACCEPT),
            Rule(RuleType.MATCH_CHARACTERISTICS, (TCP_SYN,)),
            Rule(RuleType.MATCH_CHARACTERISTICS, (TCP_ACK,)),
            Rule(RuleType.ACTION_ACCEPT),
            Rule(RuleType.ACTION_DROP),
        ]
    )


class NoSuchNetwork(Exception):
    """The ID can never name a network."""


def config(nwid: NetworkId, us: Address, now_ms: int) -> NetworkConfig | None:
    """The configuration of an ad-hoc network; None for IDs of no known form.

    :raises NoSuchNetwork: its ports end before they begin.
    """
    ips = [InetAddress(sixplane(nwid, us), SIXPLANE_BITS)]
    if nwid & 0xFFFFFF == 0:
        first, last = nwid >> 40 & 0xFFFF, nwid >> 24 & 0xFFFF
        if last < first:
            raise NoSuchNetwork(f"{nwid}")
        name, limit, table = f"adhoc-{first:04x}-{last:04x}", 0, accepts_ports(first, last)
        specialists: tuple[int, ...] = ()
    elif nwid & 0xFF == 0x01:
        net, hub = nwid >> 48 & 0xFF, nwid >> 8 & 0xFFFFFFFFFF
        name, limit, table = (
            f"adhoc-{net}.0.0.0",
            1024,
            rules.encode([Rule(RuleType.ACTION_ACCEPT)]),
        )
        ips.append(InetAddress(bytes([net]) + us.encode()[2:], 8))
        specialists = (hub,) if hub else ()
    else:
        return None
    return NetworkConfig(
        nwid=nwid,
        issued_to=us,
        timestamp=now_ms,
        window=MAX_DELTA_MS,
        revision=1,
        flags=NDP_EMULATION,
        multicast_limit=limit,
        public=True,
        name=name,
        specialists=specialists,
        static_ips=tuple(ips),
        rules=table,
    )
