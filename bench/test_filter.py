"""Cost of a verdict, one core, no Python in the loop.

The goal: 64 base rules plus 8 capabilities under 300 ns per frame.
"""

import pytest

from zt._fast.filter import Program, Remote

US, PEER = 0x212F17E738, 0xA4D16039BC
SOURCE_MAC, DEST_MAC = 0xEEDEEFE7BEB0, 0xEE5B11906034
TCP = bytes.fromhex("450000280001000040065fc20a0102030a04050600509c400000000100000002501203e8")
TIMES = 1000  # short rounds: one of them is undisturbed


def rule(kind: int, data: bytes = b"") -> bytes:
    return bytes([kind, len(data)]) + data


def port_set(port: int, action: int) -> bytes:
    """TCP to one port from one subnet: a set of three matches and an action."""
    return (
        rule(36, b"\x06")
        + rule(31, bytes([10, 0, 0, 0, 8]))
        + rule(40, port.to_bytes(2, "big") * 2)
        + rule(action)
    )


RULES = b"".join(port_set(1000 + i, 0) for i in range(15)) + (
    rule(0x80 | 37, b"\x08\x00") + rule(0x80 | 37, b"\x08\x06") + rule(0) + rule(5)
)
CAPABILITIES = [
    (i, rule(48, bytes([0, 0, 0, 5, 0, 0, 0, i])) + port_set(2000 + i, 1)) for i in range(7)
] + [(7, rule(36, b"\x06") + rule(1))]

PROGRAMS = {
    "accept all": Program(US, rule(1)),
    "64 rules, 8 capabilities": Program(
        US, RULES, capabilities=CAPABILITIES, tags=[(5, 6), (6, 7)]
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_verdict(benchmark, name):
    program = PROGRAMS[name]
    remote = Remote(tags=[(5, 6)])
    benchmark.group = "filter, per frame x 1000"
    total = benchmark(program.repeat, TIMES, PEER, SOURCE_MAC, DEST_MAC, 0x800, TCP, remote)
    assert total == TIMES
    benchmark.extra_info["ns_per_frame"] = round(benchmark.stats["min"] / TIMES * 1e9, 1)
