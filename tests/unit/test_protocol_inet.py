"""Physical addresses: chapter 02, 3.3."""

import pytest

from zt.protocol.errors import DecodeError
from zt.protocol.inet import NIL, InetAddress, Scope
from zt.protocol.wire import Reader

SCOPE_NAMES = {
    "none": Scope.NONE,
    "multicast": Scope.MULTICAST,
    "loopback": Scope.LOOPBACK,
    "pseudoprivate": Scope.PSEUDO_PRIVATE,
    "global": Scope.GLOBAL,
    "link_local": Scope.LINK_LOCAL,
    "shared": Scope.SHARED,
    "private": Scope.PRIVATE,
}


def test_encode(vectors):
    for case in vectors("inetaddress.json")["encode"]:
        address = InetAddress.parse(case["string"])
        assert address.version == case["family"]
        assert address.ip.hex() == case["ip_bytes"]
        assert address.port == case["port"]
        assert address.encode().hex() == case["wire"]
        assert str(address) == case["to_string"]
        assert address.scope == SCOPE_NAMES[case["ip_scope"]] == case["ip_scope_value"], case
        assert address.source_network == case["rate_gate_hash_14bit"], case
        assert InetAddress.decode(address.encode()) == address


def test_decode(vectors):
    for case in vectors("inetaddress.json")["decode"]:
        wire = bytes.fromhex(case["wire"])
        # An overrun of the skipped bytes is an error here; see the chapter.
        if not case["ok"] or case["consumed"] > len(wire):
            with pytest.raises(DecodeError):
                InetAddress.decode(wire)
            continue
        reader = Reader(wire)
        address = InetAddress.read(reader)
        assert reader.offset == case["consumed"]
        assert address.version == case["family"]
        assert str(address) == case["address"]


@pytest.mark.parametrize(
    ("network", "ip", "inside"),
    [
        ("10.1.0.0/16", "10.1.255.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("0.0.0.0/0", "1.2.3.4", True),
        ("10.1.2.3/32", "10.1.2.3", True),
        ("10.1.2.3/99", "10.1.2.4", False),
        ("::/0", "1.2.3.4", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "fe12::1", False),
    ],
)
def test_contains(network, ip, inside):
    assert InetAddress.parse(network).contains(InetAddress.parse(ip).ip) is inside


def test_nil_contains_nothing():
    assert not NIL
    assert not NIL.contains(b"")


@pytest.mark.parametrize(
    "text",
    ["x", "1.2.3/4", "1.2.3.4/x", "1.2.3.4/65536", "fe80::1%eth0/1", "/1", "1.2.3.4/-1", "::g/1"],
)
def test_bad_text(text):
    with pytest.raises(DecodeError):
        InetAddress.parse(text)


def test_mapped_and_compatible_text():
    for text in ("::ffff:1.2.3.4/0", "::1.2.3.4/0", "::1/0", "::ff/0", "1::ffff:102:304/0"):
        assert str(InetAddress.parse(text)) == text
