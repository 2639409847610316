"""A private ZeroTier world in a lab: a root with a controller, and nodes on one network.

Every role (the root, each node) is played by a program: ours, or the unmodified original when
``ZT_REFERENCE`` names the folder of its ``zerotier-one``. Both are driven the same way: home
folder, command line, local HTTP API (docs/protocol/06, sections 1 to 4).
"""

from __future__ import annotations

import http.client
import ipaddress
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.lab import Host, Lab, LabError, Process, wait_for

PROJECT = Path(__file__).resolve().parent.parent
PORT = 9993
# Port mapping would look for a router that the lab does not have.
LOCAL_CONF: Mapping[str, Any] = {"settings": {"portMappingEnabled": False}}
# 10.0.0.0/8 of the tunnel never meets the lab's own addresses.
POOL = ("10.66.0.1", "10.66.0.254", "10.66.0.0/24")


# By program, in the order in which a lab gives them: (secret, public). Each takes a second of work.
_made: dict[str, list[tuple[str, str]]] = {}


@dataclass(frozen=True)
class Program:
    """How the three commands of one implementation are called."""

    name: str
    one: tuple[str, ...]
    cli: tuple[str, ...]
    idtool: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()


def ours() -> Program:
    """This project: its installed commands beside this Python, else its modules."""
    scripts = Path(sys.executable).parent
    modules = {"one": "zt.service.main", "cli": "zt.cli.main", "idtool": "zt.cli.idtool"}
    commands = {
        word: (str(scripts / f"zerotier-{word}"),)
        if (scripts / f"zerotier-{word}").exists()
        else (sys.executable, "-m", module)
        for word, module in modules.items()
    }
    return Program("ours", **commands, env=(("PYTHONPATH", str(PROJECT)),))


def reference() -> Program | None:
    """The original, when ``ZT_REFERENCE`` names its folder; LabError if it is not there."""
    folder = os.environ.get("ZT_REFERENCE")
    if not folder:
        return None
    binary = str(Path(folder).resolve() / "zerotier-one")
    if not os.access(binary, os.X_OK):
        raise LabError(f"ZT_REFERENCE={folder} has no zerotier-one")
    # -q and -i turn the one binary into its other two personalities.
    return Program("reference", (binary,), (binary, "-q"), (binary, "-i"))


def run(
    program: Program, words: tuple[str, ...], *args: str | Path, cwd: Path | None = None
) -> str:
    """Runs a command outside the lab (identities, planets); its stdout."""
    argv = [*words, *map(str, args)]
    env = {**os.environ, **dict(program.env)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd, env=env)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr}{done.stdout}")
    return done.stdout


class Service:
    """A ``zerotier-one`` on a host, with its home folder."""

    def __init__(
        self,
        host: Host,
        program: Program,
        local_conf: Mapping[str, Any] = LOCAL_CONF,
        *,
        port: int = PORT,
        place: str = "",
    ) -> None:
        """``place``: the IP at which others find it, if that is not its host's."""
        self.host = host
        self.program = program
        self.port = port
        self.place = place or host.address
        self.home = host.lab.directory / f"home-{host.name}-{port}"
        self.home.mkdir()
        self.process: Process | None = None
        self.identity = ""
        (self.home / "local.conf").write_text(json.dumps(local_conf))

    @property
    def address(self) -> str:
        """The ten digits of its ZeroTier address."""
        return self.identity[:10]

    @property
    def endpoint(self) -> str:
        """Where it is reached, as a world says it."""
        return f"{self.place}/{self.port}"

    def generate(self) -> None:
        """Gives it an identity that its own identity tool made; labs never meet, so that each
        gives the same ones again."""
        secret, public = self.home / "identity.secret", self.home / "identity.public"
        made = _made.setdefault(self.program.name, [])
        number = next(self.host.lab.identities)
        while len(made) <= number:
            run(self.program, self.program.idtool, "generate", secret, public)
            made.append((secret.read_text(), public.read_text()))
        for file, text in zip((secret, public), made[number], strict=True):
            file.write_text(text)
        secret.chmod(0o600)
        self.identity = public.read_text().strip()

    def launch(self, *options: str) -> Process:
        """Starts the program without waiting for anything."""
        words: list[str | Path] = [*self.program.one, *options, f"-p{self.port}", self.home]
        env = dict(self.program.env)
        self.process = self.host.start(words, name="zerotier-one", env=env)
        return self.process

    def start(self, timeout_s: float = 30.0) -> None:
        """Starts the program and waits until its API answers."""
        self.launch()
        self.wait_ready(timeout_s)

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Waits until the API of the launched program answers."""
        process = self.running
        wait_for(f"the API of {process.name}", self.status, timeout_s, [process])
        self.identity = (self.home / "identity.public").read_text().strip()

    def stop(self) -> int:
        """Stops the program; its exit status."""
        process, self.process = self.running, None
        return process.stop()

    @property
    def running(self) -> Process:
        if self.process is None:
            raise LabError(f"{self.program.name} on {self.host.name} was not started")
        return self.process

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """One request to the local API, from the host itself: status and body."""
        token = (self.home / "authtoken.secret").read_text().strip()
        port = int((self.home / "zerotier-one.port").read_text())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.sock = self.host.inside(socket.create_connection, ("127.0.0.1", port), 20)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"X-ZT1-Auth": token})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise ConnectionError(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def api(self, method: str, path: str, body: object = None) -> Any:
        """The JSON answer of the local API; LabError for a status other than 200."""
        status, data = self.request(method, path, body)
        if status != 200:
            raise LabError(f"{self.host.name}: {method} {path}: {status} {data[:200]!r}")
        return json.loads(data)

    def status(self) -> dict[str, Any] | None:
        """GET /status, or None while the service is not ready."""
        try:
            answer: dict[str, Any] = self.api("GET", "/status")
        except (OSError, ValueError, LabError):
            return None
        return answer

    def cli(self, *words: str) -> str:
        """Runs zerotier-cli on the host; its stdout."""
        argv = [*self.program.cli, f"-D{self.home}", *words]
        return self.host.run(argv, env=dict(self.program.env)).stdout

    def network(self, nwid: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.api("GET", f"/network/{nwid}")
        return answer

    def peer(self, address: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.api("GET", f"/peer/{address}")
        return answer

    def direct(self, other: Service) -> bool:
        """Whether it reaches the other over a path of the other's own."""
        paths = self.peer(other.address).get("paths", ())
        return any(path["address"].startswith(f"{other.place}/") for path in paths)

    def addresses(self, nwid: str) -> list[str]:
        """Addresses of the network that the kernel of its host has, without prefix length."""
        network = self.network(nwid)
        wanted = [text.partition("/")[0] for text in network["assignedAddresses"]]
        if network["status"] != "OK" or not wanted:
            return []
        return wanted if all(self.host.inside(has_address, address) for address in wanted) else []


def has_address(address: str) -> bool:
    """Whether this namespace's kernel has the address, ready for use."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


class World:
    """A root with its controller, and nodes; made, started and joined step by step."""

    def __init__(
        self,
        lab: Lab,
        roles: Mapping[str, Program],
        *,
        step: Callable[[str], None] = lambda text: None,
        local_conf: Mapping[str, Mapping[str, Any]] | None = None,
        hosts: Mapping[str, Host] | None = None,
        places: Mapping[str, str] | None = None,
        port: int = PORT,
    ) -> None:
        """``roles``: "root", perhaps "root2" and so on, and the nodes, each with the program that
        plays it. ``hosts``: where those run that shall not get a new host on the switch.
        ``places``: the IPs of those that others find elsewhere than at their host's. ``port``:
        everybody's, another one for a second world on the same hosts."""
        self.lab = lab
        self.step = step
        self.commands: list[str] = []  # what a person would type to do the same
        self.services = {
            role: Service(
                (hosts or {}).get(role) or lab.host(role),
                program,
                (local_conf or {}).get(role, LOCAL_CONF),
                port=port,
                place=(places or {}).get(role, ""),
            )
            for role, program in roles.items()
        }
        self.root = self.services["root"]  # the controller, too
        self.roots = [s for role, s in self.services.items() if role.startswith("root")]
        self.nodes = [service for service in self.services.values() if service not in self.roots]
        self.nwid = ""  # of the network made last

    def create(self) -> None:
        """Identities for all, and the planet that names the roots."""
        self.step("making identities and a private planet")
        for service in self.services.values():
            service.generate()
            self.commands.append(f"zerotier-idtool generate {service.home}/identity.secret")
        planet = make_planet(self.roots)
        roots = " ".join(f"{root.home}/identity.public={root.endpoint}" for root in self.roots)
        self.commands.append(f"zerotier-idtool planet {roots}")
        for service in self.services.values():
            (service.home / "planet").write_bytes(planet)

    def start(self) -> None:
        """Starts the root, then the nodes together: their first HELLO shall find it."""
        for role, service in self.services.items():
            self.step(f"starting {role} ({service.program.name}, {service.address})")
            service.launch()
            self.commands.append(
                f"{service.host.prompt} zerotier-one -p{service.port} {service.home}"
            )
            if service is self.root:
                service.wait_ready()
        for node in self.nodes:
            node.wait_ready()

    def create_network(self, number: int = 1, **fields: Any) -> str:
        """A private network with IPv4 from a pool, RFC 4193 and 6PLANE; the nodes are members."""
        nwid = f"{self.root.address}{number:06x}"
        self.step(f"creating network {nwid} through the controller's API")
        start, end, target = POOL
        settings = {
            "name": "lab",
            "private": True,
            "v4AssignMode": {"zt": True},
            "v6AssignMode": {"rfc4193": True, "6plane": True},
            "ipAssignmentPools": [{"ipRangeStart": start, "ipRangeEnd": end}],
            "routes": [{"target": target}],
            **fields,
        }
        self._post(f"/controller/network/{nwid}", settings)
        for node in self.nodes:
            self._post(f"/controller/network/{nwid}/member/{node.address}", {"authorized": True})
        self.nwid = nwid
        return nwid

    def _post(self, path: str, body: Mapping[str, Any]) -> None:
        self.root.api("POST", path, body)
        token = f"$(cat {self.root.home}/authtoken.secret)"
        self.commands.append(
            f"{self.root.host.prompt} curl -H X-ZT1-Auth:{token}"
            f" http://127.0.0.1:{self.root.port}{path} -d '{json.dumps(body)}'"
        )

    def join(self, nwid: str) -> None:
        """Joins the nodes with their command lines."""
        for node in self.nodes:
            self.step(f"{node.host.name}: zerotier-cli join {nwid}")
            node.cli("join", nwid)
            self.commands.append(f"{node.host.prompt} zerotier-cli -D{node.home} join {nwid}")

    def wait_joined(self, nwid: str, timeout_s: float = 60.0) -> None:
        """Waits until every node has its configuration and its addresses."""
        for node in self.nodes:
            what = f"{node.host.name} to be configured by the controller"
            alive = [self.root.running, node.running]
            wait_for(what, partial(node.addresses, nwid), timeout_s, alive)

    def wait_direct(self, timeout_s: float = 60.0) -> None:
        """Waits until every two nodes reach each other directly; traffic must be flowing."""
        for one, other in itertools.permutations(self.nodes, 2):
            what = f"{one.host.name} to reach {other.host.name} directly"
            alive = [one.running, other.running]
            wait_for(what, partial(one.direct, other), timeout_s, alive)


def make_planet(roots: Sequence[Service]) -> bytes:
    """The planet of these roots at their hosts' addresses. Made again it is an update of the one
    before if the first root's program is ours."""
    folder = roots[0].home.with_name(f"planet-{roots[0].port}")
    folder.mkdir(exist_ok=True)
    program = roots[0].program
    if program.name == "ours":
        words = [f"{root.home}/identity.public={root.endpoint}" for root in roots]
        run(program, program.idtool, "planet", *words, cwd=folder)
    else:
        # The original makes moons only, but its tool takes the other type (ch. 03, 2.2).
        first = roots[0].home / "identity.public"
        world = json.loads(run(program, program.idtool, "initmoon", first))
        world["worldType"] = "planet"
        world["roots"] = [
            {"identity": root.identity, "stableEndpoints": [root.endpoint]} for root in roots
        ]
        (folder / "world.json").write_text(json.dumps(world))
        run(program, program.idtool, "genmoon", "world.json", cwd=folder)
        next(folder.glob("*.moon")).rename(folder / "planet")
    return (folder / "planet").read_bytes()


def by_family(addresses: list[str]) -> tuple[str, str, str]:
    """One IPv4, one RFC 4193 and one 6PLANE address of those of a node."""
    v4 = next(a for a in addresses if ipaddress.ip_address(a).version == 4)
    rfc4193 = next(a for a in addresses if a.startswith("fd"))
    plane = next(a for a in addresses if a.startswith("fc"))
    return v4, rfc4193, plane
