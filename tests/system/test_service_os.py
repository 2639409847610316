"""TAP devices, addresses and routes on a real kernel (ch. 06, sections 7 and 8)."""

import asyncio
import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.lab import Lab
from zt.protocol.address import Address, MulticastGroup, NetworkId
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import Dns, NetworkConfig
from zt.protocol.netconf import Route as ConfigRoute
from zt.service.clock import Clock
from zt.service.dns import Resolver
from zt.service.home import Home
from zt.service.managed import NetworkSettings
from zt.service.netlink import Netlink
from zt.service.networks import Networks

pytestmark = pytest.mark.system

NWID = NetworkId(0x82B3038CB6000001)
DEVICE = "ztbycqhdfx"


class FakeNode:
    """A node whose networks are what the test says."""

    def __init__(self) -> None:
        self.identity = SimpleNamespace(address=Address(0xA724A52773))
        self.online = True
        self.config: NetworkConfig | None = None
        self.joined: dict[NetworkId, bytes | None] = {}
        self.groups: set[MulticastGroup] = set()
        self.prefixes: list[InetAddress] = []

    def join(self, nwid: NetworkId, now_ms: int, cached: bytes | None = None) -> None:
        self.joined[nwid] = cached

    def leave(self, nwid: NetworkId, now_ms: int) -> None:
        del self.joined[nwid]

    def network(self, nwid: NetworkId) -> Any:
        return SimpleNamespace(config=self.config, status="OK")

    def groups_changed(self, nwid: NetworkId, groups: set[MulticastGroup], now_ms: int) -> None:
        self.groups = groups

    def tap_prefixes_changed(self, prefixes: list[InetAddress], now_ms: int) -> None:
        self.prefixes = prefixes

    def set(
        self,
        ips: list[str],
        routes: Sequence[tuple[str, str | None]] = (),
        mtu: int = 2800,
    ) -> None:
        self.config = NetworkConfig(
            nwid=NWID,
            issued_to=self.identity.address,
            timestamp=1,
            mtu=mtu,
            static_ips=tuple(map(InetAddress.parse, ips)),
            routes=tuple(
                ConfigRoute(InetAddress.parse(target), InetAddress.parse(via or ""))
                for target, via in routes
            ),
        )


class FakePump:
    def __init__(self) -> None:
        self.taps: dict[int, list[int]] = {}

    def tap_add(self, nwid: int, fds: list[int], *, vnet_hdr: bool) -> None:
        self.taps[nwid] = fds

    def tap_remove(self, nwid: int) -> None:
        del self.taps[nwid]


class World:
    """Networks of one host with a node that does as told."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.node = FakeNode()
        self.pump = FakePump()
        self.netlink = Netlink()
        self.networks = Networks(
            self.home,
            self.node,  # type: ignore[arg-type]
            self.pump,
            self.netlink,
            Resolver(),
            Clock(),
            vnet_hdr=True,
            queues=2,
            drain=lambda: None,
        )

    async def sync(self) -> None:
        await self.networks.synchronize(NWID)


def ip(*words: str) -> Any:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=False)
    return json.loads(done.stdout or "[]")


def by_hand(*words: str) -> None:
    """What an administrator does behind our back."""
    subprocess.run(["ip", *words], check=True)


def addresses(device: str = DEVICE) -> set[str]:
    return {
        f"{info['local']}/{info['prefixlen']}"
        for link in ip("addr", "show", "dev", device)
        for info in link["addr_info"]
        if info["scope"] != "link"
    }


def routes(family: str = "-4", device: str = DEVICE) -> set[tuple[str, str | None]]:
    found = ip(family, "route", "show", "dev", device, "proto", "static")
    return {(route["dst"], route.get("gateway")) for route in found}


Scenario = Callable[[World], Coroutine[Any, Any, None]]


@pytest.fixture
def run(lab: Lab, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on a host of its own; whatever happens, its devices are closed."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            world = World(tmp_path)
            try:
                await scenario(world)
            finally:
                await world.networks.close()
                await world.netlink.close()

        lab.host("a").inside(asyncio.run, main())

    return run


def test_join_and_leave(run: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        joined = await world.networks.join(NWID)
        assert joined.tap is not None
        assert joined.tap.name == DEVICE
        assert world.pump.taps == {int(NWID): joined.tap.fds}
        (link,) = ip("link", "show", "dev", DEVICE)
        assert link["address"] == "02:a7:24:13:ab:70"
        assert link["mtu"] == 2800
        assert "UP" in link["flags"]
        assert (world.home / f"networks.d/{NWID}.conf").read_bytes() == b"\n"
        settings = NetworkSettings(allow_global=True)
        await world.networks.configure(NWID, settings)
        local = world.home / f"networks.d/{NWID}.local.conf"
        assert local.read_text() == str(settings)

        assert await world.networks.leave(NWID)
        assert not await world.networks.leave(NWID)
        assert not local.exists()
        assert not world.home.networks()
        assert ip("link", "show", "dev", DEVICE) == []
        assert world.pump.taps == {}

    run(scenario)


def test_name_that_is_taken(run: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        by_hand("link", "add", DEVICE, "type", "bridge")
        joined = await world.networks.join(NWID)
        assert joined.tap is not None
        assert joined.tap.name == "ztbycqhdfy"

    run(scenario)


def test_addresses_follow_configuration_and_settings(run: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        await world.networks.join(NWID)
        world.node.set(["10.200.1.5/24", "fd82::5/88", "9.9.9.9/24"], mtu=1400)
        await world.sync()
        assert addresses() == {"10.200.1.5/24", "fd82::5/88"}
        assert ip("link", "show", "dev", DEVICE)[0]["mtu"] == 1400
        (link,) = ip("-4", "addr", "show", "dev", DEVICE)
        assert link["addr_info"][0]["broadcast"] == "10.200.1.255"
        assert link["addr_info"][0]["label"] == DEVICE
        assert {str(p) for p in world.node.prefixes} > {"10.200.1.5/24", "fd82::5/88"}

        await world.networks.configure(NWID, NetworkSettings(allow_global=True))
        assert "9.9.9.9/24" in addresses()
        world.node.set(["10.200.1.5/16"])
        await world.sync()
        assert addresses() == {"10.200.1.5/16"}
        # Deleted by hand, it comes back (Q20).
        by_hand("addr", "del", "10.200.1.5/16", "dev", DEVICE)
        await world.sync()
        assert addresses() == {"10.200.1.5/16"}
        await world.networks.configure(NWID, NetworkSettings(allow_managed=False))
        assert addresses() == set()

    run(scenario)


def test_routes(run: Callable[[Scenario], None]) -> None:
    """Gateways, on-link targets, defaults as halves, repairs and conflicts."""

    async def scenario(world: World) -> None:
        await world.networks.join(NWID)
        own = ["10.201.2.5/24", "fd77::5/64"]
        configured: list[tuple[str, str | None]] = [
            ("10.201.2.0/24", None),
            ("10.9.0.0/16", None),
            ("10.77.0.0/16", "10.201.2.200"),
            ("10.91.0.0/16", "10.201.2.200"),
            ("10.99.0.0/16", "10.50.0.1"),  # out of reach: the kernel refuses, we go on
            ("8.8.4.0/24", "10.201.2.200"),
            ("0.0.0.0/0", "10.201.2.200"),
            ("fd78::/48", "fd77::1"),
        ]
        by_hand("route", "add", "10.91.0.0/16", "dev", "eth0", "metric", "5000")
        world.node.set(own, configured)
        await world.sync()
        private = {("10.9.0.0/16", None), ("10.77.0.0/16", "10.201.2.200")}
        assert routes() == private
        assert routes("-6") == {("fd78::/48", "fd77::1")}
        (on_link,) = ip("route", "show", "10.9.0.0/16")
        assert on_link["prefsrc"] == "10.201.2.5"
        (by_gateway,) = ip("route", "show", "10.77.0.0/16")
        assert by_gateway["metric"] == 5000

        await world.networks.configure(NWID, NetworkSettings(allow_global=True, allow_default=True))
        via = "10.201.2.200"
        everything = private | {("8.8.4.0/24", via), ("0.0.0.0/1", via), ("128.0.0.0/1", via)}
        assert routes() == everything
        by_hand("route", "del", "128.0.0.0/1")
        world.node.online = False  # what was set stays, and is repaired
        await world.sync()
        assert routes() == everything

        await world.networks.configure(NWID, NetworkSettings())
        assert routes() == private
        world.node.set(own)
        await world.sync()
        assert routes() == set()
        assert ip("route", "show", "10.91.0.0/16")[0]["dev"] == "eth0"

    run(scenario)


def test_tap_that_cannot_be_opened(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network stays joined with its error; another one works."""

    async def scenario(world: World) -> None:
        def fail(name: str, **options: Any) -> None:
            raise PermissionError(1, "Operation not permitted")

        with monkeypatch.context() as patch:
            patch.setattr("zt.service.networks.open_tap", fail)
            joined = await world.networks.join(NWID)
        assert joined.tap is None
        assert joined.port_error == -1
        await world.sync()
        other = await world.networks.join(NetworkId(NWID + 1))
        assert other.tap is not None
        assert await world.networks.leave(NWID)

    run(scenario)


def test_device_removed_under_us(run: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        await world.networks.join(NWID)
        by_hand("link", "del", DEVICE)
        world.node.set(["10.1.1.1/24"], mtu=1500)
        await world.sync()
        assert await world.networks.leave(NWID)

    run(scenario)


def test_multicast_groups(run: Callable[[Scenario], None]) -> None:
    """What the kernel listens to, and the resolution groups of our addresses (ch. 06, 7.3)."""

    async def scenario(world: World) -> None:
        await world.networks.join(NWID)
        world.node.set(["10.200.1.5/24"])
        await world.sync()
        world.networks.scan_groups()
        groups = {(str(g.mac), g.adi) for g in world.node.groups}
        assert ("01:00:5e:00:00:01", 0) in groups
        assert ("33:33:00:00:00:01", 0) in groups
        assert ("ff:ff:ff:ff:ff:ff", 0x0AC80105) in groups

    run(scenario)


def test_closing_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    def inside() -> None:
        async def main() -> None:
            world = World(tmp_path)
            world.node.set(["10.200.1.5/24"], [("10.77.0.0/16", "10.200.1.1")])
            await world.networks.join(NWID)
            await world.sync()
            await world.networks.close()
            await world.netlink.close()
            assert ip("link", "show", "dev", DEVICE) == []
            assert not (tmp_path / "os-changes.json").exists()
            assert world.home.networks() == [NWID]  # joined again at the next start

        before = len(os.listdir("/proc/self/fd"))
        asyncio.run(main())
        assert len(os.listdir("/proc/self/fd")) <= before

    lab.host("a").inside(inside)


def test_what_a_killed_run_left_is_undone(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its devices may live on in a child, and resolvconf keeps a record: the journal knows, and
    nothing that is not in it is touched."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "resolvconf").write_text(f"#!/bin/sh\necho $@ >>{tmp_path}/said\n")
    (tools / "resolvconf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    journal = tmp_path / "os-changes.json"

    def inside() -> None:
        async def killed() -> None:
            world = World(tmp_path)
            world.node.set(["10.200.1.5/24"], [("10.77.0.0/16", "10.200.1.1")])
            world.node.config = dataclasses.replace(
                world.node.config,  # type: ignore[type-var]
                dns=Dns("corp.example", (InetAddress(bytes((10, 66, 0, 2))),)),
            )
            joined = await world.networks.join(NWID)
            await world.networks.configure(NWID, NetworkSettings(allow_dns=True))
            assert joined.tap is not None
            # The end of it, without any of our clean-up.
            await world.netlink.run(joined.tap.close)
            await world.netlink.close()

        async def next_run() -> None:
            world = World(tmp_path)
            await world.networks.recover()
            await world.netlink.close()

        asyncio.run(killed())
        assert DEVICE in json.loads(journal.read_text())
        by_hand("link", "add", DEVICE, "type", "bridge")
        by_hand("link", "set", DEVICE, "up")
        for address in ("10.200.1.5/24", "10.3.3.3/24"):
            by_hand("addr", "add", address, "dev", DEVICE)
        for target in ("10.77.0.0/16", "10.88.0.0/16"):
            by_hand("route", "add", target, "via", "10.200.1.1", "dev", DEVICE, "proto", "static")
        asyncio.run(next_run())
        assert addresses() == {"10.3.3.3/24"}
        assert ("10.77.0.0/16", "10.200.1.1") not in routes()

    lab.host("a").inside(inside)
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [f"-a {DEVICE}.zerotier", f"-d {DEVICE}.zerotier"]
    assert not journal.exists()
    journal.write_text("{")
    asyncio.run(World(tmp_path).networks.recover())  # says so, and goes on
