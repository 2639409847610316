"""The programs that the end-to-end suite compares, each as a tunnel between two hosts of a lab.

``begin`` starts one without waiting for it, ``tunnel`` waits until it carries traffic, so that
several can get ready at the same time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bench import measure
from bench.lab import Host, Lab, LabError, Process, wait_for
from bench.world import LOCAL_CONF, Program, World, by_family, run

# The addresses of the tunnels that do not assign any by themselves.
INNER = {"a": "10.66.1.1", "b": "10.66.1.2"}


@dataclass
class Tunnel:
    """Two hosts, their IPv4 addresses inside the tunnel and the programs that carry it."""

    a: Host
    b: Host
    address_a: str
    address_b: str
    programs: list[Process] = field(default_factory=list)


class Contender(Protocol):
    def begin(self, lab: Lab) -> None: ...

    def tunnel(self) -> Tunnel: ...


def ready(tunnel: Tunnel) -> Tunnel:
    """Waits until it answers in both directions."""
    measure.wait_ping(tunnel.a, tunnel.address_b)
    measure.wait_ping(tunnel.b, tunnel.address_a)
    return tunnel


class Bare:
    """No tunnel at all: what the machine and the traffic generator themselves can do."""

    def begin(self, lab: Lab) -> None:
        self.hosts = lab.host("a"), lab.host("b")

    def tunnel(self) -> Tunnel:
        a, b = self.hosts
        return ready(Tunnel(a, b, a.address, b.address))


class ZeroTier:
    """A private world of its own; ``relayed`` keeps the nodes from reaching each other directly."""

    def __init__(
        self,
        a: Program,
        b: Program,
        *,
        mtu: int = 2800,
        relayed: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.roles = {"root": a, "a": a, "b": b}
        self.mtu = mtu
        self.relayed = relayed
        conf = {"settings": {**LOCAL_CONF["settings"], **(settings or {})}}
        self.local_conf = dict.fromkeys(self.roles, conf)

    def begin(self, lab: Lab) -> None:
        self.world = World(lab, self.roles, local_conf=self.local_conf)
        self.world.create()
        a, b = self.world.nodes
        if self.relayed:
            lab.separate(a.host, b.host)
        self.world.start()
        self.nwid = self.world.create_network(mtu=self.mtu)
        self.world.join(self.nwid)

    def tunnel(self) -> Tunnel:
        self.world.wait_joined(self.nwid)
        a, b = self.world.nodes
        programs = [a.running, b.running]
        if self.relayed:
            programs.append(self.world.root.running)
        v4 = [by_family(node.addresses(self.nwid))[0] for node in (a, b)]
        tunnel = ready(Tunnel(a.host, b.host, v4[0], v4[1], programs))
        if not self.relayed:
            self.world.wait_direct()
        elif a.direct(b) or b.direct(a):
            raise LabError("a path between separated hosts")
        return tunnel


class WireGuard:
    """wireguard-go, one interface on each host."""

    @staticmethod
    def installed() -> bool:
        return bool(shutil.which("wireguard-go") and shutil.which("wg"))

    def begin(self, lab: Lab) -> None:
        self.hosts = lab.host("a"), lab.host("b")
        self.programs = []
        for host in self.hosts:
            host.run(["sh", "-c", f"umask 77; wg genkey >{self._key(host)}"])
            words = ["wireguard-go", "--foreground", self._device(host)]
            # It asks for this, as its users should take the kernel's WireGuard where they can.
            env = {"WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1"}
            self.programs.append(host.start(words, env=env))
        for host, other in (self.hosts, self.hosts[::-1]):
            device = self._device(host)
            wait_for("wireguard-go", partial(self._configured, host, device))
            public = host.run(["sh", "-c", f"wg pubkey <{self._key(other)}"]).stdout.strip()
            words = ["wg", "set", device, "listen-port", "51820"]
            words += ["private-key", str(self._key(host)), "peer", public]
            words += ["endpoint", f"{other.address}:51820", "allowed-ips", "10.66.1.0/24"]
            host.run(words)

    @staticmethod
    def _device(host: Host) -> str:
        """Its control sockets lie in one folder for all namespaces, so names must differ."""
        return f"wg{os.getpid()}{host.name}"

    @staticmethod
    def _key(host: Host) -> Path:
        return host.lab.directory / f"wireguard-{host.name}.key"

    @staticmethod
    def _configured(host: Host, device: str) -> bool:
        if host.run(["wg", "show", device], check=False).returncode:
            return False
        host.run(["ip", "address", "add", f"{INNER[host.name]}/24", "dev", device])
        host.run(["ip", "link", "set", device, "up"])
        return True

    def tunnel(self) -> Tunnel:
        return ready(Tunnel(*self.hosts, INNER["a"], INNER["b"], self.programs))


class Nebula:
    """nebula, with the two hosts known to each other from their configuration."""

    CONFIG = """
pki: {{ca: {folder}/ca.crt, cert: {folder}/{name}.crt, key: {folder}/{name}.key}}
static_host_map: {{"{other_inner}": ["{other}:4242"]}}
lighthouse: {{am_lighthouse: false, hosts: []}}
listen: {{host: 0.0.0.0, port: 4242}}
tun: {{dev: nebula1, mtu: 1400}}
logging: {{level: error}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
"""

    @staticmethod
    def installed() -> bool:
        return bool(shutil.which("nebula") and shutil.which("nebula-cert"))

    def begin(self, lab: Lab) -> None:
        self.hosts = lab.host("a"), lab.host("b")
        self.programs = []
        folder = lab.directory
        tool = Program("nebula-cert", ("nebula-cert",), (), ())
        run(tool, tool.one, "ca", "-name", "lab", cwd=folder)
        for host, other in (self.hosts, self.hosts[::-1]):
            words = ["sign", "-name", host.name, "-ip", f"{INNER[host.name]}/24"]
            run(tool, tool.one, *words, cwd=folder)
            config = folder / f"{host.name}.yml"
            config.write_text(
                self.CONFIG.format(
                    folder=folder,
                    name=host.name,
                    other=other.address,
                    other_inner=INNER[other.name],
                )
            )
            self.programs.append(host.start(["nebula", "-config", config]))

    def tunnel(self) -> Tunnel:
        return ready(Tunnel(*self.hosts, INNER["a"], INNER["b"], self.programs))
