"""`zerotier-cli dump`: one text file for support (ch. 06, 4.10)."""

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence

from zt import version

SIOCGIFADDR = 0x8915
SIOCGIFMTU = 0x8921


def write(path: str, sections: Sequence[tuple[str, str]], home: str) -> None:
    """Write titles and raw JSON bodies, `local.conf` and the interfaces. Raises OSError."""
    lines = ["platform: Linux", f"zerotier version: {version.TEXT}"]
    for title, body in sections:
        lines += ["", title, "-" * len(title), body]
    lines += ["", "local.conf", "-" * len("local.conf"), _local_conf(home)]
    lines += ["", "Network Interfaces", "-" * len("Network Interfaces"), "", *_interfaces()]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o664)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _local_conf(home: str) -> str:
    try:
        with open(os.path.join(home, "local.conf"), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return "None Present"


def _interfaces() -> Iterator[str]:
    """Every interface with an IPv4 address, loopback left out."""
    v6 = _ipv6_addresses()
    number = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                v4 = socket.inet_ntoa(fcntl.ioctl(probe, SIOCGIFADDR, request)[20:24])
                mtu = struct.unpack("=i", fcntl.ioctl(probe, SIOCGIFMTU, request)[16:20])[0]
            except OSError:
                continue  # no IPv4 address
            if name == "lo":
                continue
            yield f"Interface {number}"
            yield "-----------"
            yield f"Name: {name}"
            yield f"MTU: {mtu}"
            yield f"MAC: {_mac(name)}"
            yield "Addresses: "
            yield v4
            yield from v6.get(name, [])
            yield ""
            number += 1


def _mac(name: str) -> str:
    with contextlib.suppress(OSError), open(f"/sys/class/net/{name}/address") as file:
        return file.read().strip()
    return ""


def _ipv6_addresses() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as file:
        for line in file:
            digits, *_, name = line.split()
            text = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
            found.setdefault(name, []).append(text)
    return found
