"""A small network on one machine: hosts in network namespaces on one switch, gone at the end.

    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        server = a.start(["program", "--option"])
        wait_for("the server to listen", lambda: a.inside(connects, 80), alive=[server])

Everything lives in namespaces of its own, the switch too, so the machine's own interfaces, routes
and ports are untouched and several labs can run at once. Leaving the block, also through Ctrl-C or
an exception, ends every program and removes every namespace and file. A lab whose process was
killed leaves namespaces without processes: the next lab removes those. Needs root, iproute2 and
setpriv (util-linux); routers need nft (nftables).
"""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, TypeVar

PREFIX = "ztlab"
NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Hosts get addresses that count as global, so that nodes treat the lab as they treat the Internet.
SUBNET = "44.66.0."
LAN = "192.168.1."  # behind every router the same, as in homes
# A frame must not wait for the spanning tree nor for a snooping querier.
BRIDGE = "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set br0 up\n"

patience = 1.0
"""A factor of every time limit of this module; tests, which share the machine, set a larger one."""

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound="Host")
Words = Sequence[str | Path]  # of a command line


class LabError(RuntimeError):
    """The lab could not be built, or something awaited did not come."""


def wait_for(
    what: str,
    check: Callable[[], T | None],
    timeout_s: float = 30.0,
    alive: Iterable[Process] = (),
) -> T:
    """The first true value of ``check``, called over and over; LabError after ``timeout_s``
    (times ``patience``). What takes long is asked for less often: it is told within 50 ms and 1 %.

    OSError from ``check`` counts as "not yet"; a process of ``alive`` that ends is an error.
    """
    timeout_s *= patience
    started = time.monotonic()
    pause = 0.002
    last: Exception | None = None
    while True:
        try:
            if value := check():
                return value
        except OSError as error:
            last = error
        for process in alive:
            if not process.running:
                raise LabError(
                    f"{process.name} ended while waiting for {what}:\n{process.output()}"
                )
        waited_s = time.monotonic() - started
        if waited_s > timeout_s:
            raise LabError(f"waited {timeout_s:g} s for {what}" + (f": {last}" if last else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05 + waited_s / 100)


def ip(*words: str | int, batch: str | None = None) -> str:
    """Runs ``ip`` of iproute2; LabError with its message if it fails."""
    argv = ["ip", *map(str, words)]
    done = subprocess.run(argv, input=batch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def end_on_sigterm() -> None:
    """Makes SIGTERM end this program as an exception does, so that labs are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def check_requirements() -> None:
    """LabError saying what this machine or user lacks."""
    if os.geteuid() != 0:
        raise LabError("network namespaces and TAP devices need root")
    if not Path("/dev/net/tun").exists():
        raise LabError("/dev/net/tun is missing (modprobe tun)")
    for program, package in (("ip", "iproute2"), ("setpriv", "util-linux")):
        if shutil.which(program) is None:
            raise LabError(f"{program} is missing: apt-get install -y {package}")


class Lab:
    """Hosts on one switch. ``keep`` leaves everything running and existing at the end."""

    _numbers = itertools.count()

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self.name = f"{PREFIX}{os.getpid()}x{next(self._numbers)}"
        self.switch = f"{self.name}-switch"
        self.hosts: dict[str, Host] = {}
        self.identities = itertools.count()
        """Numbers of those that its nodes were given."""
        self.directory = Path()

    def __enter__(self) -> Lab:
        check_requirements()
        remove_abandoned()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        try:
            ip("netns", "add", self.switch)
            ip("-n", self.switch, "-batch", "-", batch=f"{BRIDGE}link set lo up\n")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.keep:
            self.remove()

    def host(self, name: str) -> Host:
        """A new host on the switch; its address is the next free one."""
        return self._add(Host(self, name, len(self.hosts) + 1))

    def router(self, name: str, translation: str) -> Router:
        """A new router on the switch, with a LAN behind it; see ``Router``."""
        return self._add(Router(self, name, len(self.hosts) + 1, translation))

    def _add(self, host: H) -> H:
        self.hosts[host.name] = host
        host._create()
        return host

    def separate(self, *hosts: Host, separate: bool = True) -> None:
        """Lets nothing pass between these hosts on the switch; others still reach them all."""
        for host in hosts:
            isolated = "on" if separate else "off"
            words = ("link", "set", host.port, "type", "bridge_slave", "isolated", isolated)
            ip("-n", host.switch, *words)

    def reunite(self, *hosts: Host) -> None:
        """Takes ``separate`` back."""
        self.separate(*hosts, separate=False)

    def remove(self) -> None:
        """Ends every program and removes every namespace and file; a second Ctrl-C has to wait."""
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            processes = [process for host in self.hosts.values() for process in host.processes]
            for process in processes:
                process.signal(signal.SIGTERM)
            for process in processes:
                process.stop(timeout_s=5.0)
            for host in self.hosts.values():
                host._thread.shutdown()
            for namespace in (*(host.namespace for host in self.hosts.values()), self.switch):
                remove_namespace(namespace)
            if self.directory != Path():
                shutil.rmtree(self.directory, ignore_errors=True)
        finally:
            if main:
                signal.signal(signal.SIGINT, before)


class Host:
    """One network namespace with one interface, ``eth0``, on the lab's switch or a router's."""

    def __init__(self, lab: Lab, name: str, number: int, router: Router | None = None) -> None:
        self.lab = lab
        self.name = name
        self.namespace = f"{lab.name}-{name}"
        self.address = f"{LAN if router else SUBNET}{number}"
        self.prompt = f"ip netns exec {self.namespace}"
        self.processes: list[Process] = []
        self.port = f"p{number}"  # its end on the switch
        self.switch = router.namespace if router else lab.switch
        self.gateway = router.inside_address if router else ""
        # Stays in the namespace; whatever it opens belongs there.
        self._thread = ThreadPoolExecutor(1, f"lab-{name}", self._enter)

    def _create(self) -> None:
        ip("netns", "add", self.namespace)
        # Duplicate address detection would hold every new IPv6 address back for a second.
        for scope in ("all", "default"):
            self.sysctl(f"net/ipv6/conf/{scope}/accept_dad", 0)
            self.sysctl(f"net/ipv6/conf/{scope}/router_solicitations", 0)
        ip(
            *("-n", self.switch, "link", "add", self.port, "type", "veth"),
            *("peer", "name", "eth0", "netns", self.namespace),
        )
        ip("-n", self.switch, "link", "set", self.port, "master", "br0", "up")
        commands = f"link set lo up\naddr add {self.address}/24 dev eth0\nlink set eth0 up\n"
        if self.gateway:
            commands += f"route add default via {self.gateway}\n"
        ip("-n", self.namespace, "-batch", "-", batch=commands)

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with (NAMESPACES / self.namespace).open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {self.namespace}")

    def inside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function(...)`` in a thread of this host: sockets that it opens are this host's."""
        return self._thread.submit(function, *args, **kwargs).result()

    def argv(self, words: Words) -> list[str]:
        """The words of a command that runs another command on this host."""
        return [*self.prompt.split(), *map(str, words)]

    def run(
        self,
        words: Words,
        *,
        check: bool = True,
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on this host to its end; LabError if it fails and ``check`` is set."""
        done = subprocess.run(
            self.argv(words),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s * patience,
            env={**os.environ, **(env or {})},
        )
        if check and done.returncode:
            text = (done.stderr + done.stdout).strip()
            raise LabError(f"{self.name}: {' '.join(map(str, words))}: {text}")
        return done

    def start(
        self,
        words: Words,
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Starts a command on this host; it ends with the lab, or when this process is killed."""
        process = Process(self, words, name or Path(words[0]).name, env or {})
        self.processes.append(process)
        return process

    def sysctl(self, name: str, value: int) -> None:
        """Sets ``/proc/sys/<name>`` in this host's namespace."""
        self.inside(Path("/proc/sys", name).write_text, str(value))


# Unsolicited packets are dropped before they leave a trace in the table of connections.
ROUTER_RULES = """
table ip nat {{
  chain postrouting {{ type nat hook postrouting priority srcnat; oifname "eth0" {translation}; }}
}}
table ip filter {{
  chain input {{ type filter hook input priority filter; iifname "eth0" ct state new drop; }}
  chain forward {{ type filter hook forward priority filter; iifname "eth0" ct state new drop; }}
}}
"""


class Router(Host):
    """A host with a LAN behind it, whose addresses it translates to its own on the switch.

    ``translation`` is the statement of nftables that does so, "masquerade" for one. Only answers
    come in.
    """

    def __init__(self, lab: Lab, name: str, number: int, translation: str) -> None:
        super().__init__(lab, name, number)
        self.translation = translation
        self.inside_address = f"{LAN}1"
        self._hosts = 0

    def host(self, name: str) -> Host:
        """A new host on the LAN; its default route leads here."""
        self._hosts += 1
        return self.lab._add(Host(self.lab, name, self._hosts + 1, self))

    def rules(self, text: str) -> None:
        """Adds to the rules of nftables, or replaces them after "flush ruleset"."""
        argv = self.argv(["nft", "-f", "-"])
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"{self.name}: nft: {done.stderr.strip()}")

    def _create(self) -> None:
        super()._create()
        self.sysctl("net/ipv4/ip_forward", 1)
        if Path("/proc/sys/net/bridge").exists():
            # What is translated back into the LAN is routed, not bridged.
            self.sysctl("net/bridge/bridge-nf-call-iptables", 0)
        lan = f"{BRIDGE}addr add {self.inside_address}/24 dev br0\n"
        ip("-n", self.namespace, "-batch", "-", batch=lan)
        self.rules(ROUTER_RULES.format(translation=self.translation))


class Process:
    """A program on a host. Its output goes to a file and is read with ``output``."""

    def __init__(
        self,
        host: Host,
        words: Words,
        name: str,
        env: Mapping[str, str],
    ) -> None:
        self.host = host
        self.name = f"{name} on {host.name}"
        self.log = host.lab.directory / f"{host.name}-{len(host.processes)}-{name}.log"
        # Both commands in front replace themselves, so the pid becomes the program's own.
        leash = [] if host.lab.keep else ["setpriv", "--pdeathsig", "KILL", "--"]
        with self.log.open("wb") as log:
            self._popen = subprocess.Popen(
                host.argv([*leash, *words]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C is for us; we end our programs in order
            )
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.running:
            self._popen.send_signal(number)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit status; LabError when the program does not end by itself in time."""
        try:
            return self._popen.wait(timeout_s * patience)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name} did not end in time") from None

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL after ``timeout_s``; the exit status, negative for a signal."""
        self.signal(signal.SIGTERM)
        try:
            return self._popen.wait(timeout_s * patience)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            return self._popen.wait()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and kernel, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0


def machine_cpu_seconds() -> float:
    """CPU time that the whole machine spent working since it started, interrupts included."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = map(int, fields)
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND


def remove_namespace(name: str) -> None:
    """Deletes a namespace with what is in it; no complaint if it is not there."""
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def remove_abandoned(*, kept: bool = False) -> list[str]:
    """Removes labs whose owner is gone and that run nothing; with ``kept``, their programs too."""
    labs: dict[str, list[str]] = {}
    for path in sorted(NAMESPACES.glob(f"{PREFIX}*x*-*")) if NAMESPACES.exists() else ():
        labs.setdefault(path.name.partition("-")[0], []).append(path.name)
    removed = []
    for lab, namespaces in labs.items():
        owner = lab.removeprefix(PREFIX).partition("x")[0]
        if Path("/proc", owner).exists():
            continue
        pids = [int(pid) for name in namespaces for pid in pids_in(name)]
        if pids and not kept:
            continue
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for name in namespaces:
            remove_namespace(name)
        for directory in Path(tempfile.gettempdir()).glob(f"{lab}-*"):
            shutil.rmtree(directory, ignore_errors=True)
        removed.append(lab)
    return removed


def pids_in(namespace: str) -> list[str]:
    """The processes of a namespace; none if it does not exist."""
    argv = ["ip", "netns", "pids", namespace]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()


if __name__ == "__main__":
    if sys.argv[1:] != ["clean"]:
        sys.exit("usage: python -m bench.lab clean    removes worlds left by KEEP=1")
    for gone in remove_abandoned(kept=True):
        print(f"removed {gone}")
