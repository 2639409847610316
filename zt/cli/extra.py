"""What zerotier-cli can do beyond the original: explanations, pings, captures, support archives."""

import io
import json
import os
import platform
import re
import socket
import struct
import sys
import tarfile
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from zt import version
from zt.cli import tables

if TYPE_CHECKING:
    from zt.cli.main import Cli

WAIT_S = 60.0
WATCH_S = 1.0
PCAP_ETHERNET = 1
ETH_P_ALL = 3
SNAP_LENGTH = 65535
CONTROL_S = 5.0
SECRETS = re.compile(
    r"(?P<identity>[0-9a-f]{10}:0:[0-9a-f]{128}):[0-9a-f]{128}"
    r'|(?P<key>"[^"]*(?:token|secret|auth|password|key)[^"]*"\s*:\s*)"[^"]*"',
    re.IGNORECASE,
)
"""Private halves of identities, and values of keys that sound secret."""


def run(cli: "Cli") -> int:
    """One of our commands; the exit code."""
    options = cli.options
    if options.command == "status":
        return status(cli)
    if "--watch" in options.long and options.command in ("peers", "listpeers"):
        return watch(cli)
    commands = {
        "ping": ping,
        "netcheck": netcheck,
        "wait": wait,
        "network": network,
        "capture": capture,
        "doctor": doctor,
    }
    if options.command == "trace":
        from zt.cli.trace import trace

        return trace(cli)
    command = commands.get(options.command)
    if command is None:
        sys.stderr.write(options.help())
        return 2
    return command(cli)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


# --- status ------------------------------------------------------------------------------------


def status(cli: "Cli") -> int:
    """0 when nothing is wrong, 1 when a check failed."""
    if not cli.options.json:
        cli.info()
    checks = tables.objects(cli.get("/diagnosis")[1])
    if cli.options.json:
        cli.print_json(checks)
    else:
        _print(_findings(checks))
    return int(any(check.get("level") == "error" for check in checks))


def _findings(checks: Iterable[dict[str, Any]]) -> Iterable[str]:
    marks = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}
    for check in checks:
        mark = marks.get(str(check.get("level")), "       ")
        yield f"{mark} {tables.text(check.get('name'))}: {tables.text(check.get('text'))}"
        if check.get("remedy"):
            yield f"        -> {check['remedy']}"


def watch(cli: "Cli") -> int:
    """Peers with latency and kind of path, until interrupted."""
    while True:
        value = cli.get("/peer")[1]
        if cli.options.json:
            print(json.dumps(value, sort_keys=True))
        else:
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            print(clear + "\n".join(_peer_lines(value)), flush=True)
        time.sleep(WATCH_S)


def _peer_lines(value: Any) -> Iterable[str]:
    yield f"{'address':<11} {'version':<8} {'role':<7} {'latency':>8}  path"
    for peer in tables.objects(value):
        path = tables.preferred(peer)
        latency = tables.number(peer.get("latency"), -1)
        where = f"direct {path.get('address')}" if path else "relayed"
        if path and peer.get("tunneled") is True:
            where = f"tcp relay {path.get('address')}"
        shown = f"{latency} ms" if latency >= 0 else "-"
        yield (
            f"{tables.text(peer.get('address')):<11} {tables.version(peer):<8}"
            f" {tables.text(peer.get('role')):<7} {shown:>8}  {where}"
        )


# --- ping, netcheck, wait ------------------------------------------------------------------------


def ping(cli: "Cli") -> int:
    """Round trips; 0 if at least one was answered."""
    address, count = cli.options.argument, cli.options.last or "4"
    if len(address) != 10 or not tables_hex(address) or not count.isdigit():
        print("usage: zerotier-cli ping <10-digit address> [<count>]", file=sys.stderr)
        return 2
    replies: list[dict[str, Any]] = []
    for number in range(int(count)):
        if number:
            time.sleep(0.5)
        value = json.loads(cli.send("POST", f"/ping/{address}", "{}"))
        replies.append(value)
        if not cli.options.json:
            print(_pong(address, value), flush=True)
    answered = sorted(reply["ms"] for reply in replies if reply.get("reply"))
    if cli.options.json:
        cli.print_json(replies)
    elif answered:
        print(
            f"{len(answered)} of {len(replies)} answered, min/median/max"
            f" {answered[0]:.2f}/{answered[len(answered) // 2]:.2f}/{answered[-1]:.2f} ms"
        )
    return 0 if answered else 1


def _pong(address: str, value: dict[str, Any]) -> str:
    if not value.get("reply"):
        return f"no answer from {address}"
    path = value.get("path")
    where = f"directly via {path}" if path else f"through a relay ({value.get('hops')} hops)"
    return f"answer from {address} {where}: {value['ms']:.2f} ms"


def tables_hex(text: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in text)


def netcheck(cli: "Cli") -> int:
    value = cli.get("/netcheck")[1]
    if cli.options.json:
        cli.print_json(value)
        return 0
    print(f"bound:        {', '.join(value['listeningOn']) or 'nothing'}")
    print(f"seen as:      {', '.join(value['surfaceAddresses']) or 'unknown'}")
    print(f"NAT:          {value['nat']}")
    print(f"IPv6:         {'yes' if value['ipv6'] else 'no'}")
    mapping = "off" if not value["portMapping"] else ", ".join(value["mapped"]) or "none obtained"
    print(f"port mapping: {mapping}")
    print(f"TCP relay:    {'in use' if value['tcpRelay'] else 'not needed'}")
    for root in value["roots"]:
        latency = f"{root['latency']} ms" if root["latency"] >= 0 else "no answer"
        print(f"{root['role'].lower():<6} {root['address']}: {latency} {' '.join(root['paths'])}")
    return 0 if any(root["paths"] for root in value["roots"]) else 1


def wait(cli: "Cli") -> int:
    """Until online, or until the network of the argument is OK; 1 after a minute."""
    nwid = cli.options.argument
    limit = float(cli.options.last) if cli.options.last.isdigit() else WAIT_S
    end = time.monotonic() + limit
    state = ""
    while time.monotonic() < end:
        state = _state(cli, nwid)
        if state in ("ONLINE", "OK"):
            break
        time.sleep(0.1)
    good = state in ("ONLINE", "OK")
    if cli.options.json:
        cli.print_json({"ok": good, "state": state})
    elif not good:
        print(f"still {state or 'unreachable'} after {limit:g} s", file=sys.stderr)
    return 0 if good else 1


def _state(cli: "Cli", nwid: str) -> str:
    from zt.cli.client import Unreachable

    try:
        if nwid:
            status, body = cli.client.request("GET", f"/network/{nwid}")
            return str(json.loads(body).get("status", "NOT JOINED")) if status < 500 else ""
        _, body = cli.client.request("GET", "/status")
        return "ONLINE" if json.loads(body).get("online") is True else "OFFLINE"
    except (Unreachable, ValueError):
        return ""


# --- networks ------------------------------------------------------------------------------------


def network(cli: "Cli") -> int:
    """`network show ID [--effective]`."""
    if cli.options.argument != "show" or len(cli.options.last) != 16:
        print("usage: zerotier-cli network show <network ID> [--effective]", file=sys.stderr)
        return 2
    nwid = cli.options.last
    if "--effective" not in cli.options.long:
        cli.print_json(cli.get(f"/network/{nwid}")[1])
        return 0
    value = cli.get(f"/network/{nwid}/effective")[1]
    if cli.options.json:
        cli.print_json(value)
        return 0
    print(f"network {nwid}, revision {value['revision']}")
    for tag in value["tags"]:
        print(f"tag {tag['id']} = {tag['value']}")
    print(value["text"], end="")
    return 0


# --- capture -------------------------------------------------------------------------------------


def capture(cli: "Cli") -> int:
    """pcap of a network's frames until interrupted, or of control packets for some seconds."""
    what, target = cli.options.argument, cli.options.last
    if not what or (not target and sys.stdout.isatty()):
        print("usage: zerotier-cli capture <network ID>|control <file>", file=sys.stderr)
        return 2
    out = open(target, "wb") if target else sys.stdout.buffer  # noqa: SIM115 - closed below
    try:
        if what == "control":
            out.write(_control(cli))
            return 0
        networks = tables.objects(cli.get("/network")[1])
        found = next((n for n in networks if n.get("id") == what), None)
        device = found.get("portDeviceName") if found else None
        if not device:
            print(f"{what} is not joined, or has no device", file=sys.stderr)
            return 1
        _frames(str(device), out)
    except PermissionError:
        print("capturing frames needs root", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        out.flush()
        if target:
            out.close()
    return 0


def _control(cli: "Cli") -> bytes:
    """What the service recorded; bytes that are no text survive as surrogates."""
    import base64

    body = json.dumps({"seconds": CONTROL_S})
    return base64.b64decode(json.loads(cli.send("POST", "/capture", body))["pcap"])


def _frames(device: str, out: Any) -> None:
    head = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP_LENGTH, PCAP_ETHERNET)
    out.write(head)
    out.flush()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as tap:
        tap.bind((device, 0))
        while True:
            frame = tap.recv(SNAP_LENGTH)
            now = time.time_ns()
            out.write(
                struct.pack("=IIII", now // 10**9, now % 10**9 // 1000, len(frame), len(frame))
                + frame
            )
            out.flush()


# --- doctor --------------------------------------------------------------------------------------

PARTS = ("/status", "/diagnosis", "/netcheck", "/network", "/peer", "/moon", "/log", "/metrics")


def doctor(cli: "Cli") -> int:
    """All findings; with `--bundle` also an archive of everything but secrets."""
    code = status(cli)
    if not cli.options.json:
        print()
        netcheck(cli)
    if "--bundle" in cli.options.long:
        target = os.path.abspath(time.strftime("zerotier-doctor-%Y%m%d-%H%M%S.tar.gz"))
        _bundle(cli, target)
        print(f"Writing bundle to: {target}")
    return code


def _bundle(cli: "Cli", target: str) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for path in PARTS:
            _, body = cli.client.request("GET", path)
            _add(archive, f"{path[1:]}.{'prom' if path == '/metrics' else 'json'}", body)
        _add(archive, "system.txt", f"{version.TEXT}\n{platform.platform()}\n{sys.version}\n")
        try:
            with open(os.path.join(cli.options.home, "local.conf"), encoding="utf-8") as conf:
                _add(archive, "local.conf", conf.read())
        except (OSError, UnicodeDecodeError):
            pass
        for command in (["ip", "addr"], ["ip", "route"], ["ip", "-6", "route"], ["ip", "rule"]):
            _add(archive, "-".join(command) + ".txt", _output(command))


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = without_secrets(text).encode("utf-8", "replace")
    entry = tarfile.TarInfo(f"zerotier-doctor/{name}")
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))


def without_secrets(text: str) -> str:
    """The text with private keys and tokens blacked out."""

    def hide(match: re.Match[str]) -> str:
        kept = match["identity"]
        return f"{kept}:(secret)" if kept else f'{match["key"]}"(secret)"'

    return SECRETS.sub(hide, text)


def _output(command: list[str]) -> str:
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{error}\n"
    return done.stdout + done.stderr
