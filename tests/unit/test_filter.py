"""The compiled rules engine against recorded verdicts, and against its slow twin.

``ZT_FILTER_EXAMPLES`` sets how many programs and frames the two are compared on (default 250).
"""

import ipaddress
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.filter_twin import SIZES, Frame, Side, Twin
from zt._fast import filter as fast

REASONS = {
    fast.ACCEPTED: "accepted",
    fast.DROPPED: "dropped",
    fast.UNMATCHED: "unmatched",
    fast.REDIRECTED: "redirected",
}
COUNTED = {"accepted": "accepted", "redirected": "accepted", "unmatched": "dropped"}
MAX_DELTA_MS = 1800000
EXAMPLES = int(os.environ.get("ZT_FILTER_EXAMPLES", "250"))

# -- recorded verdicts ---------------------------------------------------------------------------


def mac(text):
    return int(text.replace(":", ""), 16)


def thing(text):
    """A thing of an ownership certificate as the recording writes it: a MAC or IP/bits."""
    if "/" not in text:
        return 1, bytes.fromhex(text.replace(":", ""))
    ip = ipaddress.ip_address(text.split("/")[0])
    return (2 if ip.version == 4 else 3), ip.packed


def side(held, *, check_time):
    """Credentials of one side; those of a remote count only while valid (ch. 04, 7.7)."""
    revoked = {
        (r["type"], r["credential_id"]): r["threshold_off"] for r in held.get("revocations", ())
    }

    def valid(kind, item):
        age = item.get("ts_off", 0)
        if not check_time:
            return True
        return abs(age) <= MAX_DELTA_MS and age > revoked.get((kind, item["id"]), age - 1)

    return Side(
        capabilities={
            c["id"]: bytes.fromhex(c["rules"]) for c in held.get("caps", ()) if valid(2, c)
        },
        tags={t["id"]: t["value"] for t in held.get("tags", ()) if valid(3, t)},
        things=[thing(t) for c in held.get("coos", ()) if valid(4, c) for t in c["things"]],
    )


def exempt(case, nwid):
    """Prefixes of 8.6 that follow from our static IPs and the NDP flag."""
    config = case["config"]
    if not int(config.get("flags", "0"), 16) & 4:
        return []
    fold = (nwid >> 32 ^ nwid & 0xFFFFFFFF).to_bytes(4, "big")
    prefixes = {
        "6plane": b"\xfc" + fold,
        "rfc4193": b"\xfd" + nwid.to_bytes(8, "big") + b"\x99\x93",
    }
    return [prefixes[ip] for ip in config.get("static_ips", ()) if ip in prefixes]


def fast_program(twin):
    return fast.Program(
        twin.address,
        twin.rules,
        capabilities=twin.own.capabilities.items(),
        tags=twin.own.tags.items(),
        things=twin.own.things,
        exempt=twin.exempt,
        unsupported=twin.unsupported,
    )


def fast_remote(remote):
    if remote is None:
        return None
    return fast.Remote(
        capabilities=remote.capabilities.items(), tags=remote.tags.items(), things=remote.things
    )


def fast_verdict(twin, frame, remote, inbound, no_tee, seed):
    program, far = fast_program(twin), fast_remote(remote)
    rest = (frame.source_mac, frame.dest_mac, frame.ethertype, frame.payload, far)
    if inbound:
        found = program.inbound(frame.source, *rest, vlan=frame.vlan, random=seed)
    else:
        found = program.outbound(frame.dest, *rest, vlan=frame.vlan, no_tee=no_tee, random=seed)
    return found.result, REASONS[found.reason], [tuple(copy) for copy in found.copies]


def slow_verdict(twin, frame, remote, inbound, no_tee, seed):
    if inbound:
        return twin.inbound(frame, remote, random=seed)
    return twin.outbound(frame, remote, no_tee=no_tee, random=seed)


def recorded_frame(case):
    return Frame(
        int(case["zt_source"], 16),
        int(case["zt_dest"], 16),
        mac(case["mac_source"]),
        mac(case["mac_dest"]),
        case["ethertype"],
        bytes.fromhex(case["frame"]),
        case.get("vlan", 0),
    )


@pytest.mark.parametrize("judge", [fast_verdict, slow_verdict], ids=["compiled", "twin"])
def test_recorded_verdicts(vectors, judge):
    data = vectors("rules_filter.json")
    nwid = int(data["network_id"], 16)
    us = int(data["nodes"]["a"]["address"], 16)
    wrong = []
    for case in data["cases"]:
        inbound = case["direction"] == "in"
        flags = int(case["config"].get("flags", "0"), 16)
        own = side(case["config"], check_time=False)
        twin = Twin(us, bytes.fromhex(case["rules"]), own, exempt(case, nwid), bool(flags & 8))
        remote = None
        if case.get("peer") != "none":
            remote = side(case["remote"], check_time=True)
        frame = recorded_frame(case)
        expected = case["expected"]
        result, reason, copies = judge(
            twin, frame, remote, inbound, case.get("no_tee", False), case.get("prng_low32", 1)
        )
        counters = dict.fromkeys(expected["counters"], 0)
        if reason in COUNTED:
            counters[("rx_" if inbound else "tx_") + COUNTED[reason]] = 1
        macs = frame.dest_mac.to_bytes(6, "big") + frame.source_mac.to_bytes(6, "big")
        sent = [
            (f"{to:010x}", nwid.to_bytes(8, "big") + bytes([flags]) + macs
             + frame.ethertype.to_bytes(2, "big") + frame.payload[:length])
            for to, length, flags in copies
        ]  # fmt: skip
        recorded = [
            (s["dest"], bytes.fromhex(s["payload"])) for s in expected["sent"] if s["verb"] == 7
        ]
        if (result, counters, sent) != (expected["result"], expected["counters"], recorded):
            wrong.append((case["description"], case["direction"], result, reason, expected))
    assert not wrong


def test_recorded_rule_logs(vectors):
    """Remote traces of level 15 carry which rules were evaluated (ch. 04, 15)."""
    data = vectors("rules_filter.json")
    escapes = {0: b"\\0", 10: b"\\n", 13: b"\\r", 61: b"\\e", 92: b"\\\\"}

    def escaped(log):
        return b"".join(escapes.get(byte, bytes([byte])) for byte in log)

    for case in data["cases"]:
        traces = [bytes.fromhex(s["payload"]) for s in case["expected"]["sent"] if s["verb"] == 21]
        if not traces:
            continue
        own = side(case["config"], check_time=False)
        frame = recorded_frame(case)
        found = fast_program(Twin(frame.source, bytes.fromhex(case["rules"]), own)).outbound(
            frame.dest,
            frame.source_mac,
            frame.dest_mac,
            frame.ethertype,
            frame.payload,
            fast_remote(side(case["remote"], check_time=True)),
            trace=True,
        )
        fields = dict(line.split(b"=", 1) for line in traces[0].rstrip(b"\0").split(b"\n"))
        assert escaped(found.base) == fields[b"filterBaseRuleLog"]
        if found.capability is None:
            assert b"filterCapRuleLog" not in fields
        else:
            assert escaped(found.capability) == fields[b"filterCapRuleLog"]
            assert found.capability_id == int(fields[b"filterMatchingCapId"], 16)


# -- the two implementations against each other --------------------------------------------------

US, PEER, OTHER = 0x212F17E738, 0xA4D16039BC, 0xEBD83E05B9
ADDRESSES = st.sampled_from([US, PEER, OTHER, 0])
PAYLOADS = [
    "450000210001000040115fbe0a0102030a04050604d20035000d000068656c6c6f",
    "450000280001000040065fc20a0102030a04050600509c400000000100000002501203e800000000",
    "4500001c0001000040015fd30a0102030a0405060800000000000000",
    "460000240001000040015fd30a0102030a040506010101010800000000000000",
    "00010800060400010211223344550a0102030000000000000a040506",
    "6000000000160640fd000000000000000000000000000001fd000000000000000000000000000002"
    "9c4000500000000100000002500203e8000000007879",
    "6000000000203a40fd000000000000000000000000000001ff0200000000000000000001ff000002"
    "8700000000000000fd000000000000000000000000000002",
    "6000000000203a40fd000000000000000000000000000001fd000000000000000000000000000002"
    "8800000060000000fd000000000000000000000000000001",
    "6000000000183c40fd000000000000000000000000000001fd000000000000000000000000000002"
    "2b0000000000000011000000000000003500350008000061",
    "60000000000d2c40fd000000000000000000000000000001fd000000000000000000000000000002"
    "110000000000000000350035000d000068656c6c6f",
]
SMALL = st.sampled_from([0, 1, 5, 6, 7, 8, 53, 80, 1234, 65535])


def choice(*texts):
    return st.sampled_from([bytes.fromhex(text) for text in texts])


def joined(*parts):
    return st.tuples(*parts).map(b"".join)


def number(strategy, size):
    return strategy.map(lambda value: value.to_bytes(size, "big"))


def operands(kind):
    """Data of an entry, with a chance to match."""
    size = SIZES.get(kind, 0)
    match kind:
        case 2 | 3 | 4:
            return joined(
                number(ADDRESSES, 8), st.just(bytes(4)), number(st.sampled_from([0, 8, 5000]), 2)
            )
        case 24 | 25:
            return number(ADDRESSES, 5)
        case 31 | 32:
            return joined(
                choice("0a010203", "0a040506", "0a000000"), choice("00", "08", "20", "c8")
            )
        case 33 | 34:
            ips = choice("fd" + "00" * 15, "fd" + "00" * 14 + "01", "00" * 16)
            return joined(ips, choice("00", "08", "3f", "40", "41", "80", "ff"))
        case 35:
            return st.binary(min_size=3, max_size=3) | st.just(b"\xff\0\0")
        case 36:
            return choice("01", "06", "11", "2c", "3a")
        case 37:
            return choice("0800", "0806", "86dd")
        case 38:
            return joined(choice("00", "08", "87"), choice("00", "01"), choice("00", "01"))
        case 39 | 40 | 42:
            return joined(number(SMALL, 2), number(SMALL, 2))
        case 41:
            bit = st.integers(0, 63).map(lambda n: 1 << n)
            return number(st.tuples(bit, bit).map(sum).map(lambda mask: mask % 2**64), 8)
        case 43:
            return number(st.sampled_from([0, 2**31, 2**32 - 1]), 4)
        case 44 | 45 | 46 | 47 | 48 | 49 | 50:
            return joined(number(st.sampled_from([5, 6]), 4), number(st.integers(0, 8), 4))
        case 51:
            return joined(
                st.sampled_from([0, 1, 0x40, 2**64 - 4]).flatmap(
                    lambda first: SMALL.map(
                        lambda span: (
                            first.to_bytes(8, "big") + ((first + span) % 2**64).to_bytes(8, "big")
                        )
                    )
                ),
                number(st.integers(0, 80), 2),
                st.binary(min_size=1, max_size=1),
            )
    return st.binary(min_size=size, max_size=size)


entries = st.sampled_from([*SIZES, 7, 15, 16, 23, 52, 63]).flatmap(
    lambda kind: st.tuples(st.sampled_from([0, 0, 0, 0x80, 0x40, 0xC0]), operands(kind)).map(
        lambda drawn: bytes([kind | drawn[0], len(drawn[1])]) + drawn[1]
    )
)
tables = st.lists(entries, max_size=12).map(b"".join)
sides = st.builds(
    Side,
    capabilities=st.dictionaries(st.integers(0, 3), tables, max_size=2),
    tags=st.dictionaries(st.sampled_from([5, 6]), st.integers(0, 8)),
    things=st.lists(
        st.sampled_from(
            [(2, b"\x0a\1\2\3"), (3, b"\xfd" + bytes(14) + b"\1"), (1, bytes(6)), (0, b"x")]
        ),
        max_size=2,
    ),
)
twins = st.builds(
    Twin,
    st.just(US),
    tables,
    sides,
    st.lists(st.sampled_from([b"\xfd\0\0\0\0", b"\xfd" + bytes(10)]), max_size=2),
    st.booleans(),
)
frames = st.builds(
    Frame,
    source=st.just(PEER),
    dest=st.just(US),
    source_mac=st.sampled_from([0, 0xEE5B11906034]),
    dest_mac=st.sampled_from([0xEEDEEFE7BEB0, 0x3333FF000002, 0xFFFFFFFFFFFF]),
    ethertype=st.sampled_from([0x800, 0x806, 0x86DD, 0x88CC]),
    payload=st.binary(max_size=80)
    | st.tuples(st.sampled_from(PAYLOADS), st.integers(0, 90)).map(
        lambda drawn: bytes.fromhex(drawn[0])[: drawn[1]]
    )
    | st.sampled_from(PAYLOADS).map(bytes.fromhex),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(twins, st.none() | sides, frames, st.booleans(), st.booleans(), ADDRESSES,
       st.integers(1, 2**64 - 1))  # fmt: skip
def test_twin_agrees(twin, remote, frame, inbound, no_tee, dest, seed):
    if not inbound:
        frame = Frame(US, dest, *list(vars(frame).values())[2:])
    arguments = (twin, frame, remote, inbound, no_tee, seed)
    assert fast_verdict(*arguments) == slow_verdict(*arguments)


# -- hostile and odd tables ----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(table=st.binary(max_size=400), frame=frames)
def test_any_bytes_compile_or_are_refused(table, frame):
    try:
        program = fast.Program(US, table)
    except ValueError:
        return
    found = program.inbound(PEER, frame.source_mac, frame.dest_mac, frame.ethertype, frame.payload)
    assert found.result in (0, 1, 2)


def verdict(table, payload="45" + "00" * 19):
    return fast.Program(US, table).outbound(PEER, 0, 0, 0x800, bytes.fromhex(payload)).result


def test_declared_length_moves_the_cursor():
    """The value is read at its nominal place, then the declared length counts (8.1)."""
    # an ethertype of declared length 3: one byte of it is padding
    assert verdict(bytes.fromhex("25030800ff0100")) == 1
    # a protocol of declared length 0: its value is the next entry's first byte (ACCEPT)
    assert verdict(bytes.fromhex("24000100"), "45" + "00" * 8 + "01" + "00" * 10) == 1


@pytest.mark.parametrize("broken", ["25", "2502", "250208", "25050800", "010001", "0101", "3000"])
def test_truncated_tables_are_refused(broken):
    with pytest.raises(ValueError):
        fast.Program(US, bytes.fromhex(broken))
    with pytest.raises(ValueError):
        fast.Remote(capabilities=[(1, bytes.fromhex(broken))])


def test_limits():
    accept, never = b"\1\0", b"\x25\2\xff\xff\0\0"
    assert verdict(never * 511 + accept) == 1
    assert verdict(never * 512 + accept) == 0  # the 1025th entry is not read
    assert verdict(never * 512 + b"\x25") == 0
    for many in (
        {"capabilities": [(i, accept) for i in range(129)]},
        {"tags": [(i, 0) for i in range(129)]},
    ):
        with pytest.raises(ValueError):
            fast.Remote(**many)
    with pytest.raises(ValueError):
        fast.Program(US, accept, exempt=[b"", b"", b""])


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("0100", False),
        ("2401062804005000500100", False),
        ("290800000000000000020100", False),  # SYN: alike in all segments of a burst
        ("290800000000000000010100", True),  # FIN: on the last one only
        ("2a04000001000100", True),
        ("2b04800000000100", True),
        ("33130000000000000000000000000000000100020f0100", True),
        ("020e000000a4d16039bc0000000000000100", True),
    ],
)
def test_per_segment(table, expected):
    rules = bytes.fromhex(table)
    assert fast.Program(US, rules).per_segment is expected
    assert fast.Program(US, b"", capabilities=[(1, rules)]).per_segment is expected
    assert fast.Remote(capabilities=[(1, rules)]).per_segment is expected


def test_random_matches_at_its_rate():
    program = fast.Program(US, bytes.fromhex("2b04400000000100"))
    source = random.Random(1)
    hits = sum(
        program.outbound(PEER, 0, 0, 0x800, b"", random=source.getrandbits(64) or 1).result
        for _ in range(4000)
    )
    assert 0.22 < hits / 4000 < 0.28
