"""Addresses, network IDs, MACs, groups: chapter 02, 3.1 and 3.2; chapter 04, 2."""

import pytest

from zt.protocol.address import (
    Address,
    Mac,
    MulticastGroup,
    NetworkId,
    rfc4193,
    sixplane,
)
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress


def test_derivation(vectors):
    data = vectors("address_mac.json")
    for case in data["derive"]:
        address = Address.parse(case["address"])
        nwid = NetworkId.parse(case["network_id"])
        mac = Mac.of(address, nwid)
        assert nwid.first_octet == case["first_octet"]
        assert str(mac) == case["mac"]
        assert mac.encode().hex() == case["mac_bytes"]
        assert str(mac.address(nwid)) == case["address_back"]
        assert mac.in_network(nwid)
        assert address.encode().hex() == case["address_bytes"]
        assert address.reserved == case["address_reserved"]
        assert Address.decode(address.encode()) == address
        assert Mac.decode(mac.encode()) == mac == Mac.parse(case["mac"])
    for case in data["arp_groups"]:
        group = MulticastGroup.resolving(InetAddress.parse(case["ip"]).ip)
        assert (str(group.mac), group.adi) == (case["mac"], case["adi"])


def test_mac_of_network(vectors):
    for case in vectors("mac.json")["cases"]:
        nwid = NetworkId.parse(case["network_id"])
        mac = Mac.parse(case["mac"])
        assert nwid.first_octet == case["first_octet"]
        assert str(mac.address(nwid)) == case["address_from_mac"]
        assert mac.multicast == case["is_multicast"]
        if "address" in case:
            assert Mac.of(Address.parse(case["address"]), nwid) == mac
            assert mac.locally_administered == case["is_locally_administered"]
        if "in_network" in case:
            assert mac.in_network(nwid) == case["in_network"]
        if "is_broadcast" in case:
            assert mac.broadcast == case["is_broadcast"]


def test_derived_ips(vectors):
    for case in vectors("ipv6_derived.json")["cases"]:
        if "ip" in case:
            group = MulticastGroup.resolving(InetAddress.parse(case["ip"]).ip)
            assert (str(group.mac), group.adi) == (case["group_mac"], case["group_adi"])
            assert MulticastGroup.decode(group.encode()) == group
            continue
        address, nwid = Address.parse(case["address"]), NetworkId.parse(case["network_id"])
        private, plane = rfc4193(nwid, address), sixplane(nwid, address)
        assert private.hex() == case["rfc4193_hex"]
        assert plane.hex() == case["sixplane_hex"]
        assert str(InetAddress(private, 88)) == case["rfc4193"]
        assert str(InetAddress(plane, 40)) == case["sixplane"]
        link_local = Mac.of(address, nwid).link_local_ip
        assert str(InetAddress(link_local, 64)) == case["link_local_from_mac"]


def test_network_id_parts():
    nwid = NetworkId.parse("8056c2e21c000001")
    assert str(nwid.controller) == "8056c2e21c"
    assert not nwid.ad_hoc
    assert NetworkId.parse("ff00160016000000").ad_hoc
    assert NetworkId.decode(nwid.encode()) == nwid


@pytest.mark.parametrize(
    "text", ["", "12345", "xyzxyzxyzx", "-123456789", "0x12345678", "12 3456789"]
)
def test_bad_text(text):
    for kind in (Address, NetworkId, Mac):
        with pytest.raises(DecodeError):
            kind.parse(text)
