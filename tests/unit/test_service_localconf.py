"""local.conf against the recorded cases, and what the original gets wrong (ch. 06, 5)."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import require_cases
from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.service.localconf import LocalConfError, parse, parse_trusted_paths
from zt.service.netlink import HostAddress
from zt.service.sockets import wanted_bindings

HOST = [
    HostAddress("lo", 1, InetAddress.parse("127.0.0.1/8"), False),
    HostAddress("eth0", 2, InetAddress.parse("44.66.0.13/24"), False),
    HostAddress("eth0", 2, InetAddress.parse("fe80::1234/64"), False),
]
"""The host of the recorded cases, and what must not be bound on it."""


def content(case: dict[str, Any]) -> bytes:
    text = case["local_conf"]
    if text is None:
        return b""
    return text.encode() if isinstance(text, str) else json.dumps(text).encode()


def test_recorded_cases(vectors: Callable[[str], Any]) -> None:
    """Errors, messages, sockets and what /status shows."""
    ran = 0
    for case in vectors("local_conf.json")["cases"]:
        if "args" not in case or "extra_files" in case:
            continue
        n = case["n"]
        if case.get("exit"):
            with pytest.raises(LocalConfError) as error:
                parse(content(case))
            if "ERROR: " in case["stderr"][0]:
                assert case["stderr"][0] == f"ERROR: {error.value}", n
            continue
        conf = parse(content(case))
        threads = ("Concurrency level", "Reserved queue", "Created post-decode")
        messages = [line for line in case["stderr"] if not line.startswith(threads)]
        assert [m for m in conf.warnings if not m.startswith("WARNING: local.conf")] == messages, n
        check_status(case, conf)
        check_sockets(case, conf)
        ran += 1
    require_cases(ran, "no started service in local_conf.json")


def check_status(case: dict[str, Any], conf: Any) -> None:
    from zt.service.api.views import settings

    recorded = case["GET_status_config"]["settings"]
    # Ports that were chosen at random are taken from the record.
    ports = SimpleNamespace(
        primary=recorded["primaryPort"],
        secondary=recorded["secondaryPort"],
        tertiary=recorded["tertiaryPort"],
    )
    daemon: Any = SimpleNamespace(
        conf=conf,
        ports=ports,
        home=SimpleNamespace(path=recorded["homeDir"]),
        sockets=SimpleNamespace(bound=list),
        node=SimpleNamespace(surface=list),
    )
    shown = {**settings(daemon), "listeningOn": 0, "surfaceAddresses": 0}
    assert shown == {**recorded, "listeningOn": 0, "surfaceAddresses": 0}, case["n"]
    assert conf.raw == case["GET_config"], case["n"]


def check_sockets(case: dict[str, Any], conf: Any) -> None:
    recorded = case["GET_status_config"]["settings"]
    ports = [int(case["port_file"])]
    if conf.allow_secondary_port:
        ports.append(recorded["secondaryPort"])
    if conf.port_mapping:
        ports.append(recorded["tertiaryPort"])
    ours = set()
    for binding in wanted_bindings(HOST, ports, conf, frozenset()):
        host, _, port = str(binding).rpartition("/")
        host = f"[{host}]" if ":" in host else host
        device = f"%{binding.device}" if binding.device else ""
        ours.add(f"{host}{device}:{port}")
    unbindable = {text for text in ours if text.startswith("1.2.3.4")}
    assert ours - unbindable == set(case["udp_listen"]), case["n"]


def test_values_that_cannot_be_used_are_named() -> None:
    conf = parse(
        b'{"settings": {"primaryPort": {}, "bind": "all", "allowManagementFrom": ["x"],'
        b' "tcpFallbackRelay": "nowhere", "typo": 1}, "physical": {"junk": {}, "10.0.0.0/8": 1},'
        b' "virtual": {"123": {}}, "extra": 1}'
    )
    text = "\n".join(conf.warnings)
    for key in (
        "settings.primaryPort", "settings.bind", "settings.allowManagementFrom",
        "settings.tcpFallbackRelay", "settings.typo", "physical.junk", "physical.10.0.0.0/8",
        "virtual.123", "extra",
    ):  # fmt: skip
        assert f"local.conf: {key}: " in text, key


@pytest.mark.parametrize(
    ("settings", "cpus", "threads"),
    [
        ('{"multicoreEnabled": true, "concurrency": 3}', 8, 3),
        ('{"multicoreEnabled": true, "concurrency": 8}', 8, 2),
        ('{"multicoreEnabled": true, "concurrency": 2}', 2, 1),
        ('{"multicoreEnabled": true}', 4, 2),
        ('{"concurrency": 3}', 8, 1),
    ],
)
def test_threads(settings: str, cpus: int, threads: int) -> None:
    """As the table of chapter 06, 5.3 has it; the recorded case is a host of two CPUs."""
    assert parse(f'{{"settings": {settings}}}'.encode()).threads(cpus) == threads


def test_physical_and_virtual() -> None:
    conf = parse(
        json.dumps(
            {
                "physical": {
                    "10.0.0.0/8": {"blacklist": True},
                    "44.66.0.0/24": {"trustedPathId": 101010024, "mtu": 500},
                    "44.66.0.1": {"blacklist": True, "mtu": 99999},
                },
                "virtual": {
                    "cae76bd1f8": {"try": ["44.66.0.12/9993", 5], "blacklist": ["44.66.0.0/24"]}
                },
            }
        ).encode()
    )
    physical = {str(network): entry for network, entry in conf.node.physical.items()}
    assert physical["10.0.0.0/8"].blacklist
    assert physical["44.66.0.0/24"].trusted_id == 101010024
    assert physical["44.66.0.0/24"].mtu == 1400
    assert not physical["44.66.0.1/0"].blacklist
    assert physical["44.66.0.1/0"].mtu == 10324
    peer = Address(0xCAE76BD1F8)
    assert conf.node.hints[peer] == (InetAddress.parse("44.66.0.12/9993"),)
    assert conf.node.blacklist[peer] == (InetAddress.parse("44.66.0.0/24"),)


def test_trusted_paths(vectors: Callable[[str], Any]) -> None:
    for case in vectors("local_conf.json")["cases"]:
        for text in (case.get("extra_files") or {}).values():
            pairs = [line.split("=") for line in text.splitlines() if not line.startswith("#")]
            expected = {InetAddress.parse(net): int(number, 16) for number, net in pairs}
            assert parse_trusted_paths(text) == expected
    assert parse_trusted_paths("0=10.0.0.0/8\nzz=10.0.0.0/8\n1=junk\n") == {}


def test_taps_and_temporary_addresses_are_not_bound() -> None:
    host = [
        *HOST,
        HostAddress("ztabc", 3, InetAddress.parse("10.1.0.1/24"), False),
        HostAddress("myzt0", 4, InetAddress.parse("10.2.0.1/24"), False),
        HostAddress("eth0", 2, InetAddress.parse("2001:db8::5/64"), True),
        HostAddress("eth1", 5, InetAddress.parse("fd00::7/64"), False),
    ]
    bound = wanted_bindings(host, [9993, 0], parse(b""), frozenset({"myzt0"}))
    assert [(str(b), b.device) for b in bound] == [
        ("44.66.0.13/9993", "eth0"),
        ("fd00::7/9993", "eth1"),
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KEYS = (
    "primaryPort", "secondaryPort", "bind", "allowManagementFrom", "forceTcpRelay", "policies",
    "tcpFallbackRelay", "defaultBondingPolicy", "peerSpecificBonds", "interfacePrefixBlacklist",
    "concurrency", "controllerDbPath",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(KEYS), json_values), json_values, json_values)
def test_any_value_is_read(settings: Any, physical: Any, virtual: Any) -> None:
    """Whatever the values, there is a configuration; only a file that is no object is an error."""
    data = json.dumps({"settings": settings, "physical": physical, "virtual": virtual})
    try:
        parse(data.encode())
    except LocalConfError as error:
        assert "invalid JSON" in str(error)  # NaN and infinities are no JSON


@given(st.binary(max_size=64))
@example(b'"\xff"')
@example(b'{"settings": {"\xff": 1}}')
@example(b"[" * 100_000)
def test_any_bytes(data: bytes) -> None:
    try:
        parse(data)
    except LocalConfError as error:
        assert "local.conf" in str(error)
