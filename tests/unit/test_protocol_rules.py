"""Rule tables: chapter 04, 8.1; chapter 05, 4 and 7."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zt.protocol import coerce, rules
from zt.protocol.errors import DecodeError
from zt.protocol.rules import Rule, RuleType
from zt.protocol.wire import Reader


def described(rule: Rule) -> dict[str, object]:
    """A rule the way the recorded data writes it."""
    names = {
        "MATCH_VLAN_ID": ("vlan_id",),
        "MATCH_VLAN_PCP": ("vlan_pcp",),
        "MATCH_VLAN_DEI": ("vlan_dei",),
        "MATCH_IP_TOS": ("mask", "start", "end"),
        "MATCH_IP_PROTOCOL": ("ip_protocol",),
        "MATCH_ETHERTYPE": ("ethertype",),
        "MATCH_ICMP": ("icmp_type", "icmp_code", "icmp_flags"),
        "MATCH_RANDOM": ("probability",),
    }
    out: dict[str, object] = {
        "t": rule.type | rule.not_ << 7 | rule.or_ << 6,
        "type": rule.type,
        "not": rule.not_,
        "or": rule.or_,
    }
    if (json := rule.to_json()) is not None:
        out["json"] = json
    if not rule.values:
        return out
    name = RuleType(rule.type).name
    if name in names:
        out |= zip(names[name], rule.values, strict=True)
    elif name.endswith("ZEROTIER_ADDRESS"):
        out["zt"] = rule.values[0].hex()
    elif "_MAC_" in name:
        out["mac"] = rule.values[0].hex()
    elif "_IPV" in name:
        out |= {"ip": rule.values[0].hex(), "mask_bits": rule.values[1]}
    elif name.endswith("RANGE") and name.startswith("MATCH"):
        out |= zip(("start", "end"), rule.values, strict=True)
    elif name == "MATCH_CHARACTERISTICS":
        out["characteristics"] = f"{rule.values[0]:016x}"
    elif "_TAG" in name:
        out |= zip(("tag_id", "tag_value"), rule.values, strict=True)
    elif name == "INTEGER_RANGE":
        start, end, index, form = rule.values
        offset = (end - start) % 2**32
        out |= {"start": f"{start:016x}", "end_offset": offset, "idx": index, "format": form}
    else:
        address, flags, length = rule.values
        out |= {"address": f"{address:010x}", "flags": flags, "length": length}
    return out


def test_binary(vectors):
    for case in vectors("rules_encoding.json")["binary_cases"]:
        binary = bytes.fromhex(case["binary"])
        reader = Reader(binary)
        if not case["valid"]:
            with pytest.raises(DecodeError):
                rules.read(reader)
            with pytest.raises(DecodeError):
                rules.decode(binary)
            continue
        table = rules.read(reader, case.get("max"))
        assert reader.offset == min(case["consumed"], len(binary))
        assert table.hex() == case["reencoded"], case["description"]
        decoded = rules.decode(table)
        assert [described(rule) for rule in decoded] == case["decoded"], case["description"]
        assert rules.encode(decoded) == table
        assert rules.count(table) == len(decoded)


def test_json(vectors):
    for case in vectors("rules_encoding.json")["json_cases"]:
        rule = rules.from_json(case["json_rule"])
        assert (rule is not None) == case["accepted"], case["description"]
        binary = b"" if rule is None else rule.encode()
        assert binary.hex() == case["binary_from_json"], case["description"]


def test_json_of_tables_in_use(vectors):
    """Rendered, parsed and rendered again, every recorded rule stays itself."""
    for case in vectors("rules_encoding.json")["binary_cases"]:
        for rule in rules.decode(bytes.fromhex(case["binary"])) if case["valid"] else ():
            rendered = rule.to_json()
            again = rules.from_json(rendered)
            if again is not None:
                assert again.to_json() == rendered


@pytest.mark.parametrize("rule", [None, 1, [], "ACTION_DROP", {"type": None}, {"type": ["x"]}])
def test_what_is_no_rule(rule):
    assert rules.from_json(rule) is None


@pytest.mark.parametrize("mask", [None, True, [], {}])
def test_bad_characteristics(mask):
    with pytest.raises(DecodeError):
        rules.from_json({"type": "MATCH_CHARACTERISTICS", "mask": mask})


@pytest.mark.parametrize(
    ("operand", "want"),
    [
        ({"type": "MATCH_IPV4_SOURCE"}, {"ip": "0.0.0.0/0"}),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "1.2.3/8"}, {"ip": "0.0.0.0/8"}),
        ({"type": "MATCH_IPV4_SOURCE", "ip": "fd00::/8"}, {"ip": "0.0.0.0/8"}),
        ({"type": "MATCH_IPV6_DEST", "ip": "::1/256"}, {"ip": "::1/0"}),
        ({"type": "MATCH_MAC_DEST", "mac": "02-03-4x"}, {"mac": "02:03:40:00:00:00"}),
        ({"type": "ACTION_TEE", "length": -1}, {"length": 65535}),
        ({"type": "MATCH_ETHERTYPE", "etherType": 0x10800}, {"etherType": 0x0800}),
        ({"type": "MATCH_FRAME_SIZE_RANGE", "start": 7, "end": None}, {"end": 7}),
        ({"type": "MATCH_SOURCE_ZEROTIER_ADDRESS", "zt": 10}, {"zt": "0000000010"}),
    ],
)
def test_sloppy_json(operand, want):
    rule = rules.from_json(operand)
    assert rule is not None
    rendered = rule.to_json()
    assert rendered is not None
    assert rendered | want == rendered


def test_coercion():
    for value, want in [(1.9, 1), (-1, 2**64 - 1), (2.0**64, 0), ("0x10", 0), (" +12z", 12),
                        ("-1", 2**64 - 1), ("9" * 30, 2**64 - 1), ("", 0), (True, 1)]:  # fmt: skip
        assert coerce.integer(value, 5) == want, value
    for value in (None, [], {}, float("nan"), float("inf")):
        assert coerce.integer(value, 5) == 5
    for value, want in [(-1, True), (0.5, False), ("true", True), ("T", True), ("1", True),
                        ("", False), ("yes", False), (0, False)]:  # fmt: skip
        assert coerce.boolean(value, not want) == want, value
    assert coerce.boolean(None, True)
    assert [coerce.text(v, "d") for v in (1.5, True, False, "x", None)] == ["1", "1", "0", "x", "d"]
    assert coerce.hexadecimal("0x1Fz") == 0x1F
    assert coerce.hexadecimal(None, 7) == 7
    assert coerce.ip("x" * 64 + ".") is None
    assert coerce.ip("host") is None
    assert coerce.ip("1.2.3.4/65537") == (b"\1\2\3\4", 1)


@given(st.binary(max_size=200))
def test_canonical_table_is_a_fixed_point(data):
    try:
        table = rules.read(Reader(data))
    except DecodeError:
        return
    assert rules.read(Reader(table)) == table
    assert rules.encode(rules.decode(table)) == table
