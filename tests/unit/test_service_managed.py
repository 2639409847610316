"""Allow rules, routes, device names, local settings against recorded states (ch. 06, 7 and 8)."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import require_cases
from zt.protocol.address import NetworkId
from zt.protocol.inet import InetAddress, ip_text, parse_ip
from zt.service.managed import (
    ConfiguredRoute,
    NetworkSettings,
    Route,
    common_bits,
    halves,
    wanted_addresses,
    wanted_routes,
)
from zt.service.tap import device_name, parse_device_map


def inet(text: str) -> InetAddress:
    return InetAddress.parse(text)


def test_device_names(vectors: Callable[[str], Any]) -> None:
    for case in vectors("os_state.json")["device_names"]:
        nwid = NetworkId(int(case["nwid"], 16))
        first = device_name(nwid, lambda name: False, {})
        taken = {first} if "taken" in case.get("note", "") else set()
        assert device_name(nwid, taken.__contains__, {}) == case["device"]


def test_device_map() -> None:
    text = "# comment\n82b3038cb6000001=myzt0\nshort=x\n82b3038cb6000002=much-too-long-name\n"
    mapped = parse_device_map(text)
    assert mapped == {NetworkId(0x82B3038CB6000001): "myzt0"}
    nwid = NetworkId(0x82B3038CB6000001)
    assert device_name(nwid, lambda name: False, mapped) == "myzt0"
    assert device_name(nwid, {"myzt0"}.__contains__, mapped) == "ztbycqhdfx"


def networks(vectors: Callable[[str], Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], str]]:
    """Snapshot, network as the API showed it, and its local settings as far as recorded."""
    for snapshot in vectors("os_state.json")["snapshots"]:
        for network in snapshot.get("networks", []):
            text = (snapshot.get("local_conf_file") or {}).get(network["id"])
            if text is None:
                text = "".join(
                    f"{key}={int(network[key])}\n"
                    for key in ("allowManaged", "allowGlobal", "allowDefault", "allowDNS")
                )
            yield snapshot, network, text


BY_HAND = re.compile("by hand|does not restore|white list is written back|set down")


def test_recorded_addresses_and_routes(vectors: Callable[[str], Any]) -> None:
    """What we want is what the original had installed, but for Q20 and Q21."""
    checked = 0
    listed: set[str] = set()  # networks with a white list instead of allowManaged
    for snapshot, network, text in networks(vectors):
        if BY_HAND.search(snapshot["title"]) or network["status"] != "OK":
            continue
        settings = NetworkSettings.parse(text)
        if settings.allow_list:
            listed.add(network["id"])
        elif network["id"] in listed:
            continue  # still under the white list, which its file has lost (Q11)
        device = network["portDeviceName"]
        links = [link for link in snapshot["ip_addr"] if link.get("ifname") == device]
        if not links:
            continue
        present = {
            InetAddress(parse_ip(info["local"]), info["prefixlen"])
            for info in links[0]["addr_info"]
            if info["scope"] != "link"
        }
        wanted = wanted_addresses(map(inet, network["assignedAddresses"]), settings)
        assert set(wanted) == present, (snapshot["n"], network["id"])
        configured = [
            ConfiguredRoute(inet(r["target"]), parse_ip(r["via"]) if r["via"] else None)
            for r in network["routes"]
        ]
        routes = wanted_routes(configured, wanted, wanted, settings, online=True)
        installed = recorded_routes(snapshot, device)
        ours = {(str(r.target), ip_text(r.via)) for r in routes if r.via is not None}
        if "refused" in snapshot["title"] or "system already has" in snapshot["title"]:
            assert installed <= ours
        else:
            assert installed == ours, (snapshot["n"], network["id"])
        checked += 1
    require_cases(checked, "no joined network in os_state.json")


def recorded_routes(snapshot: dict[str, Any], device: str) -> set[tuple[str, str]]:
    found = set()
    for text in (snapshot["ip_route_text"], snapshot["ip6_route_text"]):
        for line in text.splitlines():
            match = re.match(rf"(\S+) via (\S+) dev {device} proto static", line)
            if match is not None:
                target = match[1]
                bits = "" if "/" in target else "/128" if ":" in target else "/32"
                found.add((f"{target}{bits}", match[2]))
    return found


def test_gateway_less_routes_name_their_source() -> None:
    """Q21: the original never managed to install these."""
    routes = wanted_routes(
        [ConfiguredRoute(inet("10.9.0.0/16"), None), ConfiguredRoute(inet("fd01::/64"), None)],
        [inet("10.1.0.5/24"), inet("10.8.0.1/24")],
        [],
        NetworkSettings(),
        online=True,
    )
    assert routes == [Route(inet("10.9.0.0/16"), None, parse_ip("10.8.0.1"))]


def test_default_waits_for_online_and_order() -> None:
    configured = [
        ConfiguredRoute(inet("0.0.0.0/0"), parse_ip("10.1.0.1")),
        ConfiguredRoute(inet("10.50.0.0/16"), None),
    ]
    own = [inet("10.1.0.5/24")]
    settings = NetworkSettings(allow_default=True)
    offline = wanted_routes(configured, own, own, settings, online=False)
    assert [str(r.target) for r in offline] == ["10.50.0.0/16"]
    online = wanted_routes(configured, own, own, settings, online=True)
    assert [str(r.target) for r in online] == ["10.50.0.0/16", "0.0.0.0/1", "128.0.0.0/1"]
    assert [str(h) for h in halves(inet("::/0"))] == ["::/1", "8000::/1"]


def test_local_settings(vectors: Callable[[str], Any]) -> None:
    """The file survives parse and print; values of the chapter's table."""
    for _, _, text in networks(vectors):
        assert str(NetworkSettings.parse(text)) == text
    parse = NetworkSettings.parse
    assert parse("") == NetworkSettings()
    assert not parse("allowManaged=0\n").allow_managed
    assert not parse("allowManaged=false\n").allow_managed
    assert parse("allowManaged=true\n").allow_managed
    assert parse("allowGlobal=T\n").allow_global
    assert not parse("allowGlobal=yes\n").allow_global
    listed = parse("allowManaged=10.0.0.0/8,junk,fd00::/8\n")
    assert [str(n) for n in listed.allow_list] == ["10.0.0.0/8", "fd00::/8"]
    assert listed.allows(inet("10.1.0.0/16"))
    assert not listed.allows(inet("10.0.0.0/7"))
    assert not listed.allows(inet("192.168.0.0/24"))


addresses = st.one_of(
    st.builds(InetAddress, st.binary(min_size=4, max_size=4), st.integers(0, 32)),
    st.builds(InetAddress, st.binary(min_size=16, max_size=16), st.integers(0, 128)),
)


@given(
    st.lists(st.tuples(addresses, st.none() | st.binary(min_size=4, max_size=4)), max_size=8),
    st.lists(addresses, max_size=8),
    st.booleans(),
)
def test_routes_of_anything(
    configured: list[tuple[InetAddress, bytes | None]], own: list[InetAddress], online: bool
) -> None:
    """Never outside of what is allowed, never of a family we have no address of, each once."""
    settings = NetworkSettings(allow_default=True)
    wanted = wanted_addresses(own, settings)
    routes = wanted_routes(
        [ConfiguredRoute(*route) for route in configured], wanted, wanted, settings, online=online
    )
    assert len(set(routes)) == len(routes)
    for route in routes:
        assert any(len(address.ip) == len(route.target.ip) for address in wanted)
        assert route.via not in {address.ip for address in wanted}
        assert route.target.contains(route.target.ip)
        host_bits = 8 * len(route.target.ip) - route.target.bits
        assert int.from_bytes(route.target.ip) & ((1 << host_bits) - 1) == 0


@given(st.binary(min_size=4, max_size=4))
def test_common_bits(ip: bytes) -> None:
    assert common_bits(ip, ip) == 32
    assert common_bits(ip, bytes([ip[0] ^ 0x80]) + ip[1:]) == 0
    assert common_bits(ip, ip[:3] + bytes([ip[3] ^ 1])) == 31
