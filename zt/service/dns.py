"""DNS servers of a network, through systemd-resolved or resolvconf (ch. 06, 8.4).

Used only when `allowDNS` is true, and undone when it is not any more, on leave and on stop. A link
that vanishes takes its settings in systemd-resolved along; resolvconf keeps a record per interface,
which after a crash the next run removes (`recover`, told by `journal`).
"""

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from zt.protocol.inet import ip_text

log = logging.getLogger("zt.dns")

RESOLVED = Path("/run/systemd/resolve")
TIMEOUT_S = 5.0


class Resolver:
    """Whichever resolver the host has; without one, requests are logged once and dropped."""

    def __init__(self) -> None:
        self._set: dict[str, tuple[str, tuple[bytes, ...]]] = {}
        self._warned = False

    async def set(self, device: str, index: int, domain: str, servers: Sequence[bytes]) -> None:
        """Ask `servers` for names under `domain` over this device, and only those."""
        wanted = (domain, tuple(servers))
        if self._set.get(device) == wanted:
            return
        if not servers:
            await self.remove(device)
            return
        commands = self._set_commands(device, domain, servers)
        if commands is None:
            if not self._warned:
                log.warning("DNS of a network is not applied: no systemd-resolved, no resolvconf")
                self._warned = True
            return
        if all([await _run(*command) for command in commands]):
            self._set[device] = wanted

    async def remove(self, device: str) -> None:
        if self._set.pop(device, None) is None:
            return
        if tool := _resolvectl():
            await _run((tool, "revert", device), b"")
        elif tool := shutil.which("resolvconf"):
            await _run((tool, "-d", _record(device)), b"")

    async def recover(self, device: str) -> None:
        """Undo what a killed run left for a device of this name, whichever tool it used."""
        if tool := shutil.which("resolvconf"):
            await _run((tool, "-d", _record(device)), b"")

    def applied(self, device: str) -> bool:
        """Whether the host's resolver knows of servers on this device from us."""
        return device in self._set

    def _set_commands(
        self, device: str, domain: str, servers: Sequence[bytes]
    ) -> list[tuple[tuple[str, ...], bytes]] | None:
        addresses = [ip_text(server) for server in servers]
        if tool := _resolvectl():
            commands: list[tuple[tuple[str, ...], bytes]] = [
                ((tool, "dns", device, *addresses), b""),
                ((tool, "default-route", device, "false"), b""),
            ]
            if domain:
                # As a search domain and, by the same entry, as the routing domain.
                commands.append(((tool, "domain", device, domain), b""))
            return commands
        if tool := shutil.which("resolvconf"):
            lines = [f"nameserver {address}\n" for address in addresses]
            if domain:
                lines.insert(0, f"search {domain}\n")
            return [((tool, "-a", _record(device)), "".join(lines).encode())]
        return None


def _resolvectl() -> str | None:
    return shutil.which("resolvectl") if RESOLVED.exists() else None


def _record(device: str) -> str:
    return f"{device}.zerotier"


async def _run(command: tuple[str, ...], stdin: bytes) -> bool:
    """Run a resolver's tool without a shell; False (and a log line) if it fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await asyncio.wait_for(process.communicate(stdin), TIMEOUT_S)
    except (OSError, TimeoutError) as failure:
        log.warning("%s: %s", " ".join(command), failure)
        return False
    if process.returncode:
        text = error.decode("utf-8", "replace").strip()
        log.warning("%s: %s", " ".join(command), text or f"exit code {process.returncode}")
    return process.returncode == 0
