"""Two pumps with static tables on two hosts of a lab, and traffic between their TAPs.

The data plane alone, without nodes, controller or discovery, for profiling and for comparing its
settings:

    python -m bench.plane_pair                        # TCP, UDP and ping with every feature
    python -m bench.plane_pair --off udp_gso --tests tcp --seconds 3
    python -m bench.plane_pair --tests udp1400,udp1400t   # frames one by one, and in trains
    python -m bench.plane_pair --relay --suite 1      # through a third pump that only forwards
    python -m bench.plane_pair --perf /tmp/a.data     # perf record of the whole machine meanwhile

Prints one line per test: throughput or latency, CPU seconds of the pumps and of the machine per GB,
and with --counters what the pumps counted. Needs root.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytun

from bench import measure
from bench.lab import Host, Lab, Process, wait_for
from zt._fast.cipher import PeerKey
from zt._fast.pump import Pump
from zt._fast.switch import Switch
from zt._fast.tables import Tables

NWID = 0x8056C2E21C00ABCD
ADDRESSES = {"a": 0x1122334455, "b": 0x66778899AA, "r": 0x0123456789}
INNER = {"a": "10.77.0.1", "b": "10.77.0.2"}
PORT = 9993
FOREVER = 1 << 62
SETTINGS = ("suite", "mtu", "relay", "off", "option", "without")  # of a pump


def mac_of(address: int) -> bytes:
    """The MAC of a member (chapter 04, 2.2)."""
    octets = [(NWID & 0xFE) | 2]
    octets += [(address >> (32 - 8 * i) & 0xFF) ^ (NWID >> (8 + 8 * i) & 0xFF) for i in range(5)]
    return bytes(octets)


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True)


def end(name: str, args: argparse.Namespace) -> None:
    """One pump, in the namespace of this process, until SIGTERM."""
    outer: dict[str, str] = json.loads(args.outer)
    tables = Tables(ADDRESSES[name])
    switch = Switch(tables)
    offset_ms = int(time.time() * 1000) - time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    options: dict[str, bool | int] = dict.fromkeys(args.off, False)
    options |= {name: int(value) for name, value in (o.split("=") for o in args.option)}
    pump = Pump(switch, offset_ms, **options)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((outer[name], PORT))
    pump.udp_add(0, udp.fileno())
    for peer, address in ADDRESSES.items():
        if peer == name or peer not in outer:
            continue
        key = PeerKey(random.Random(address ^ ADDRESSES[name]).randbytes(48))
        via = "r" if args.relay and "r" not in (name, peer) else peer
        path = tables.path(0, socket.inet_aton(outer[via]), PORT)
        tables.peer_set(address, key, args.suite)
        tables.peer_route(address, path)
        tables.peer_path_add(address, path)
    tables.relay(name == "r", None)
    if name != "r":
        vnet = "vnet" not in args.without
        flags = pytun.IFF_TAP | pytun.IFF_NO_PI | (pytun.IFF_VNET_HDR if vnet else 0)
        tap = pytun.TunTapDevice("plane0", flags)
        mac, other = mac_of(ADDRESSES[name]), "b" if name == "a" else "a"
        number = int.from_bytes(mac, "big")
        tables.network_set(NWID, mtu=args.mtu, mac=number, public=False, bridge=False, rules=None)
        tables.member_set(NWID, ADDRESSES[other], allowed=True, push_due_ms=FOREVER)
        ip(f"link set plane0 address {mac.hex(':')} mtu {args.mtu} up")
        ip(f"addr add {INNER[name]}/24 dev plane0")
        # There is no control plane to answer ARP.
        neighbour = mac_of(ADDRESSES[other]).hex(":")
        ip(f"neigh add {INNER[other]} lladdr {neighbour} dev plane0 nud permanent")
        pump.tap_add(NWID, [tap.fileno()], vnet_hdr=vnet)
    pump.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    pump.stop()
    print({k: v for k, v in pump.counters().items() if v})
    print({k: v for k, v in pump.features().items() if v}, flush=True)


def start_pumps(lab: Lab, **settings: object) -> list[Process]:
    """One pump on each of the hosts "a" and "b", or three with `relay=True`; the hosts are made if
    they are not there. Settings are this command's options: `suite`, `mtu`, `relay`, and the lists
    `off`, `option` and `without`."""
    words: list[object] = []
    for name, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not False:
                words += [f"--{name}"] if one is True else [f"--{name}", one]
    names = "abr" if settings.get("relay") else "ab"
    hosts = {name: lab.hosts.get(name) or lab.host(name) for name in names}
    outer = json.dumps({name: host.address for name, host in hosts.items()})
    argv = [sys.executable, "-m", "bench.plane_pair", *map(str, words), "--outer", outer]
    pumps = []
    for name, host in hosts.items():
        process = host.start(
            [*argv, "--end", name],
            name="pump",
            env={"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        wait_for("the pump", lambda p=process: "ready" in p.output(), 20, [process])
        pumps.append(process)
    return pumps


def run(test: str, a: Host, b: Host, pumps: list[Process], seconds: float) -> str:
    address = INNER["b"]
    match test:
        case "tcp" | "tcp4":
            streams = 4 if test == "tcp4" else 1
            t = measure.tcp(a, b, address, programs=pumps, seconds=seconds, streams=streams)
            return (
                f"{t.gbit_per_s:6.2f} Gbit/s  {t.cpu_s_per_gb:5.2f} CPU s/GB"
                f"  {t.machine_cpu_s_per_gb:5.2f} of the machine"
            )
        case "ping":
            p = measure.ping(a, address, count=400, interval_s=0.005)
            return "  ".join(f"{key} {p[key]:.0f} us" for key in ("mean", "p50", "p90", "p99"))
        case _ if udp := re.fullmatch(r"udp(\d+)(t?)", test):
            size, trains = int(udp[1]), bool(udp[2])
            u = measure.udp(a, b, address, size, step_s=seconds / 10, trains=trains)
            return f"{u.delivered / 1e3:7.1f} k/s, lossless {u.lossless / 1e3:7.1f} k/s"
    raise SystemExit(f"no such test: {test}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suite", type=int, default=3)
    parser.add_argument("--mtu", type=int, default=2800)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tests", default="ping,tcp,tcp4,udp64,udp1400")
    parser.add_argument("--relay", action="store_true")
    parser.add_argument("--off", action="append", default=[], metavar="FEATURE")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--without", action="append", default=[], choices=["vnet"])
    parser.add_argument("--counters", action="store_true")
    parser.add_argument("--perf", metavar="FILE")
    parser.add_argument("--end", help=argparse.SUPPRESS)
    parser.add_argument("--outer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.end:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        end(args.end, args)
        return
    with Lab() as lab:
        settings = {name: getattr(args, name) for name in SETTINGS}
        pumps = start_pumps(lab, **settings)
        hosts = lab.hosts
        recorder = None
        if args.perf:
            argv = ["perf", "record", "-a", "-g", "-F", "999", "-o", args.perf]
            recorder = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            for _ in range(args.rounds):
                for test in args.tests.split(","):
                    result = run(test, hosts["a"], hosts["b"], pumps, args.seconds)
                    print(f"{test:8}", result, flush=True)
        finally:
            if recorder:
                recorder.send_signal(signal.SIGINT)
                recorder.wait()
        for process in pumps:
            process.stop()
            if args.counters:
                print(process.name, process.output().removeprefix("ready\n"), end="")


if __name__ == "__main__":
    main()
