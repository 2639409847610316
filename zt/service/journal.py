"""What we changed on the host, on disk, so that the next run can undo what a killed one left.

A TAP ends with the process that holds it and takes its addresses and routes along; but a record of
resolvconf stays, and so does a device that some child of ours still held. Changes are written down
before they are made and struck out after they are undone; a clean stop leaves no file.
"""

import logging
from dataclasses import dataclass

import msgspec

from zt.protocol.inet import InetAddress, ip_text, parse_ip
from zt.service.errors import ServiceError
from zt.service.home import Home
from zt.service.managed import Route

log = logging.getLogger("zt.service")

FILE = "os-changes.json"


@dataclass(frozen=True, slots=True)
class Changes:
    """What we did to one device. `dns`: the host's resolver was told of it."""

    addresses: frozenset[InetAddress] = frozenset()
    routes: frozenset[Route] = frozenset()
    dns: bool = False

    def __or__(self, other: "Changes") -> "Changes":
        return Changes(
            self.addresses | other.addresses, self.routes | other.routes, self.dns or other.dns
        )


class _Entry(msgspec.Struct):
    """One device as the file has it: `IP/bits`, and pairs of target and gateway."""

    addresses: list[str] = []
    routes: list[tuple[str, str | None]] = []
    dns: bool = False


class Journal:
    """The file, and what it says. An empty one is removed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._devices: dict[str, Changes] = {}

    def left(self) -> dict[str, Changes]:
        """By device name, what a run that came to no clean end may have left."""
        try:
            data = self._home.read(FILE)
            entries = msgspec.json.decode(data, type=dict[str, _Entry]) if data else {}
            self._devices = {name: _changes(entry) for name, entry in entries.items()}
        except (ValueError, RecursionError, ServiceError) as error:
            log.error("%s cannot be used, what is in it stays: %s", self._home / FILE, error)
            self._devices = {}
        return dict(self._devices)

    def set(self, device: str, changes: Changes) -> None:
        """What is, or is about to be, ours on a device. Raises OSError."""
        if changes == Changes():
            self.forget(device)
        elif self._devices.get(device) != changes:
            self._devices[device] = changes
            self._write()

    def add(self, device: str, changes: Changes) -> None:
        """What is about to be ours besides. Raises OSError."""
        self.set(device, self._devices.get(device, Changes()) | changes)

    def forget(self, device: str) -> None:
        """Nothing is left on a device. Raises OSError."""
        if self._devices.pop(device, None) is not None:
            self._write()

    def _write(self) -> None:
        if not self._devices:
            self._home.delete(FILE)
            return
        entries = {
            name: _Entry(
                [str(address) for address in sorted(changes.addresses)],
                [
                    (str(route.target), ip_text(route.via) if route.via else None)
                    for route in sorted(changes.routes, key=str)
                ],
                changes.dns,
            )
            for name, changes in self._devices.items()
        }
        self._home.write(FILE, msgspec.json.encode(entries))


def _changes(entry: _Entry) -> Changes:
    """Raises DecodeError."""
    return Changes(
        frozenset(map(InetAddress.parse, entry.addresses)),
        frozenset(
            Route(InetAddress.parse(target), parse_ip(via) if via else None, None)
            for target, via in entry.routes
        ),
        entry.dns,
    )
