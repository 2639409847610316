"""TAP devices (ch. 06, section 7): names and creation."""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zt.protocol.address import NetworkId

NAME_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
INTERFACES = Path("/proc/sys/net/ipv4/conf")
DEV_MCAST = Path("/proc/thread-self/net/dev_mcast")
NO_DEVICE = "no TAP device node (/dev/net/tun or /dev/tun)"


class Tap:
    """One open TAP: its interface and one descriptor per queue."""

    def __init__(self, name: str, index: int, fds: list[int], devices: list[Any]) -> None:
        self.name = name
        self.index = index
        self.fds = fds
        self._devices = devices  # python-pytun closes a descriptor with its object

    def close(self) -> None:
        """The interface vanishes, with its addresses and routes."""
        for device in self._devices:
            device.close()
        self._devices = []
        self.fds = []


def open_tap(name: str, *, vnet_hdr: bool, queues: int = 1) -> Tap:
    """Create the interface; an empty name lets the kernel choose. Blocks. Raises OSError."""
    import pytun

    flags = pytun.IFF_TAP | pytun.IFF_NO_PI
    if vnet_hdr:
        flags |= pytun.IFF_VNET_HDR
    if queues > 1:
        flags |= pytun.IFF_MULTI_QUEUE
    node = next((node for node in ("/dev/net/tun", "/dev/tun") if os.path.exists(node)), None)
    if node is None:
        raise OSError(errno.ENODEV, NO_DEVICE)
    devices: list[Any] = []
    try:
        for _ in range(queues):
            device = pytun.TunTapDevice(name=name, flags=flags, dev=node)
            devices.append(device)
            os.set_blocking(device.fileno(), False)
            os.set_inheritable(device.fileno(), False)
        name = devices[0].name
        index = _index(name)
    except BaseException:
        for device in devices:
            device.close()
        raise
    return Tap(name, index, [device.fileno() for device in devices], devices)


def device_name(
    nwid: NetworkId, taken: Callable[[str], bool], device_map: Mapping[NetworkId, str]
) -> str:
    """`zt` and 8 characters that follow from the network ID; the next free one if taken.

    `device_map` overrides: the name is used if it is free.
    """
    mapped = device_map.get(nwid)
    if mapped is not None and not taken(mapped):
        return mapped
    value = (int(nwid) ^ int(nwid) >> 24) & 0xFF_FFFF_FFFF
    while True:
        name = "zt" + "".join(NAME_ALPHABET[value >> shift & 31] for shift in range(35, -1, -5))
        if not taken(name):
            return name
        value = (value + 1) & 0xFF_FFFF_FFFF


def interface_exists(name: str) -> bool:
    return (INTERFACES / name).exists()


def parse_device_map(text: str) -> dict[NetworkId, str]:
    """The file `devicemap`: lines `<nwid>=<device name>`; others are skipped."""
    found = {}
    for line in text.splitlines():
        key, equals, name = (part.strip() for part in line.partition("="))
        if equals and len(key) == 16 and 0 < len(name) < 16 and "/" not in name:
            try:
                found[NetworkId(int(key, 16))] = name
            except ValueError:
                continue
    return found


def link_layer_groups(names: Iterable[str]) -> dict[str, set[int]]:
    """Multicast MACs that the kernel listens to on each of these devices (ch. 06, 7.3)."""
    found: dict[str, set[int]] = {name: set() for name in names}
    try:
        text = DEV_MCAST.read_text()
    except OSError:
        return found
    for line in text.splitlines():
        # index, device, users, global users, MAC
        fields = line.split()
        if len(fields) >= 5 and fields[1] in found and len(fields[4]) == 12:
            found[fields[1]].add(int(fields[4], 16))
    return found


def _index(name: str) -> int:
    import socket

    return socket.if_nametoindex(name)
